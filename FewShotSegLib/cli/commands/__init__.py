"""The commands of ``fewshotseg``, a file a group: each takes what was parsed, returns its status.

torch takes seconds to load: whatever needs it is imported where it is used, so that --help and a
wrong flag answer immediately.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..flags import Command
from .adapters import adapt_command, inspect_command
from .benchmark import benchmark_command
from .demo import demo_command
from .models import download_command, import_command, models_command, remove_command
from .pretrain import pretrain_command
from .queries import evaluate_command, segment_command
from .suggestions import suggest_command

COMMANDS: Mapping[str, Command] = {
    "adapt": adapt_command,
    "segment": segment_command,
    "evaluate": evaluate_command,
    "suggest": suggest_command,
    "models": models_command,
    "download": download_command,
    "import": import_command,
    "remove": remove_command,
    "inspect": inspect_command,
    "demo": demo_command,
    "pretrain": pretrain_command,
    "benchmark": benchmark_command,
}
"""What runs each command, by its name."""
