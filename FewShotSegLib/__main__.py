"""``python -m FewShotSegLib`` is the ``fewshotseg`` command."""

import sys

from .cli import main

sys.exit(main())
