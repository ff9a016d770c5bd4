"""make demo keeps what the README says of it."""

import subprocess
import sys
from pathlib import Path

from PIL import Image

from driving import read_result

REPOSITORY = Path(__file__).parents[2]


def test_the_demo_draws_its_jobs_and_shows_where_they_are(tmp_path: Path) -> None:
    root = tmp_path / "demo"
    command = [sys.executable, str(REPOSITORY / "tools" / "demo.py"), "--root", str(root)]
    demo = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    assert demo.returncode == 0, demo.stdout + demo.stderr + (root / "daemon.log").read_text()
    results = [read_result(path.parent) for path in root.glob("outbox/[!.]*/*/result.json")]
    assert sorted(result.status for result in results) == ["refused"] + ["succeeded"] * 13
    for result in results:
        assert result.name in demo.stdout
    [redrawn] = [result for result in results if result.name == "redraw"]
    assert redrawn.effective is not None
    assert redrawn.effective.task == "image-to-image"
    with Image.open(root / "contact-sheet.png") as sheet:
        assert sheet.width > 600
    assert "contact-sheet.png" in demo.stdout
