"""``python -u -m FewShotSegLib.worker FOLDER``: one job in a process of its own."""
