"""The page in a real browser: nothing fails, nothing leaves it, and it fits a phone."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from kava.report import judge, load_study

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="neither Chromium nor Chrome is installed")

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--enable-logging=stderr", "--allow-file-access-from-files", "--hide-scrollbars",
    "--host-resolver-rules=MAP * ~NOTFOUND",
)  # fmt: skip
FRAME = """<!DOCTYPE html><title>frame</title>
<iframe id="frame" src="{page}" style="width: 360px; height: 800px; border: 0"></iframe>
<pre id="found"></pre>
<script>
onload = () => {{
  const root = document.getElementById("frame").contentDocument;
  const seen = root.querySelectorAll(".narrow svg");
  document.getElementById("found").textContent = JSON.stringify({{
    width: root.documentElement.scrollWidth,
    pictures: [...seen].every(svg => svg.getBoundingClientRect().width > 200),
    paper: getComputedStyle(root.body).backgroundColor,
    boxes: [...root.querySelectorAll(".scroll")].every(
      box => box.getBoundingClientRect().right <= 360),
  }});
}};
</script>
"""


def dump(tmp_path: Path, url: str, *flags: str) -> tuple[str, str, list[str]]:
    """The page after loading, what the console said, and what the page asked the network for."""
    log = tmp_path / "net.json"
    done = subprocess.run(
        [
            str(BROWSER), *FLAGS, *flags, f"--user-data-dir={tmp_path / 'profile'}",
            f"--log-net-log={log}", "--dump-dom", url,
        ],
        capture_output=True, text=True, timeout=300, check=True,
    )  # fmt: skip
    console = "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)
    lines = [line for line in log.read_text().splitlines() if '"initiator"' in line]
    events = [json.loads(line.strip().rstrip(",").removesuffix("]")) for line in lines]
    requests = [
        event["params"]["url"]
        for event in events
        if event["params"]["initiator"] != "not an origin"  # as the browser's own requests are
    ]
    return done.stdout, console, requests


def test_the_browser_shows_the_logs_numbers_and_asks_nobody(
    won: Path, page: Path, tmp_path: Path
) -> None:
    dom, console, requests = dump(tmp_path, page.as_uri())
    assert console == ""
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []
    text = html.unescape(re.sub(r"<[^>]*>", "", dom)).replace("\u00a0", " ")
    study = load_study(won)
    assert judge(study).headline.replace("`", "") in text
    for arm in study.arms:
        assert f"{100 * arm.accuracy:.1f} %" in text


def test_a_request_would_be_seen(tmp_path: Path) -> None:
    leak = tmp_path / "leak.html"
    leak.write_text('<!DOCTYPE html><title>leak</title><img src="http://leak.example/x.png">')
    assert dump(tmp_path, leak.as_uri())[2] == ["http://leak.example/x.png"]


@pytest.mark.parametrize(
    ("scheme", "paper"), [(1, "rgb(255, 255, 255)"), (0, "rgb(20, 25, 31)")], ids=["light", "dark"]
)
def test_the_page_fits_a_phone(page: Path, tmp_path: Path, scheme: int, paper: str) -> None:
    frame = tmp_path / "frame.html"
    frame.write_text(FRAME.format(page=page.as_uri()))
    scheme_flag = f"--blink-settings=preferredColorScheme={scheme}"
    dom, console, _ = dump(tmp_path, frame.as_uri(), scheme_flag)
    assert console == ""
    found = json.loads(re.search(r'<pre id="found">(.*?)</pre>', dom)[1])  # type: ignore[index]
    assert found == {"width": 360, "pictures": True, "paper": paper, "boxes": True}
