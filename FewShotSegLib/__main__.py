"""``python -m FewShotSegLib`` is the ``fewshotseg`` command."""

import sys

from .cli.command_line import main

sys.exit(main())
