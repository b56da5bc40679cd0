"""A headless Chromium for tests of pages, driven over its DevTools protocol; ended with the test, by its own process."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp

_START_S = 40.0
_CALL_S = 30.0
_FLAGS = (
    "--headless",
    "--no-sandbox",  # in containers there is none; the pages are our own
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--hide-scrollbars",
    "--remote-debugging-port=0",
    "--host-resolver-rules=MAP * ~NOTFOUND",
)


def find_chromium() -> str | None:
    """The browser's program, None where there is none."""
    return next(
        (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
    )


class Page:
    """One page; `said` are console messages and uncaught errors, `asked` every address that it asked for."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.said: list[str] = []
        self.asked: list[str] = []
        self._socket = socket
        self._number = 0
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._waiting: dict[str, asyncio.Event] = {}
        self._reader = asyncio.ensure_future(self._read())

    async def open(self, path: Path, *, width: int = 1100, height: int = 900, dark: bool = False) -> None:
        """Load a file and wait until it has been drawn."""
        for domain in ("Page", "Runtime", "Log", "Network"):
            await self.call(f"{domain}.enable")
        await self.resize(width, height)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.call("Emulation.setEmulatedMedia", features=[scheme])
        loaded = self._waiting["Page.loadEventFired"] = asyncio.Event()
        await self.call("Page.navigate", url=path.as_uri())
        await asyncio.wait_for(loaded.wait(), _CALL_S)

    async def resize(self, width: int, height: int) -> None:
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500
        )

    async def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression; a promise is awaited."""
        answer = await self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    async def take_picture(self, path: Path, *, top: int = 0, height: int = 0) -> None:
        """A PNG of the whole page, or of a stretch of it."""
        size = (await self.call("Page.getLayoutMetrics"))["cssContentSize"]
        clip = {"x": 0, "y": top, "width": size["width"], "height": height or size["height"] - top, "scale": 1}
        answer = await self.call("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(answer["data"]))

    async def print(self, path: Path) -> None:
        """A PDF as the print dialogue would make it."""
        answer = await self.call("Page.printToPDF", preferCSSPageSize=True)
        path.write_bytes(base64.b64decode(answer["data"]))

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        answer = self._answers[self._number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": self._number, "method": method, "params": parameters})
        return await asyncio.wait_for(answer, _CALL_S)

    async def close(self) -> None:
        self._reader.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._reader
        await self._socket.close()

    async def _read(self) -> None:
        async for message in self._socket:
            data = message.json()
            if "id" in data:
                assert "error" not in data, data
                self._answers.pop(data["id"]).set_result(data["result"])
            else:
                self._hear(data["method"], data["params"])

    def _hear(self, method: str, data: dict[str, Any]) -> None:
        if method == "Runtime.consoleAPICalled":
            self.said.append(f"{data['type']}: {[each.get('value') for each in data['args']]}")
        elif method == "Runtime.exceptionThrown":
            self.said.append(f"exception: {data['exceptionDetails']}")
        elif method == "Log.entryAdded":
            self.said.append(f"{data['entry']['level']}: {data['entry']['text']}")
        elif method == "Network.requestWillBeSent":
            self.asked.append(data["request"]["url"])
        if method in self._waiting:
            self._waiting[method].set()


@contextlib.asynccontextmanager
async def open_browser(profile: Path) -> AsyncIterator[Page]:
    """An empty page in a browser of its own."""
    program = find_chromium()
    assert program is not None, "ask find_chromium first"
    profile.mkdir(parents=True, exist_ok=True)
    with (profile / "browser.log").open("wb") as log:
        process = subprocess.Popen(
            [program, *_FLAGS, f"--user-data-dir={profile}", "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        port = await _wait_for_port(profile, process)
        async with aiohttp.ClientSession() as session:
            page = Page(await session.ws_connect(await _find_page(session, port), max_msg_size=0))
            try:
                yield page
            finally:
                await page.close()
    finally:
        # Its helpers are in the session that was made for it.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)


async def _wait_for_port(profile: Path, process: subprocess.Popen[bytes]) -> int:
    note = profile / "DevToolsActivePort"
    deadline = asyncio.get_running_loop().time() + _START_S
    while asyncio.get_running_loop().time() < deadline:
        assert process.poll() is None, (profile / "browser.log").read_text(errors="replace")[-2000:]
        if note.exists() and (words := note.read_text().split()):
            return int(words[0])
        await asyncio.sleep(0.05)
    raise AssertionError(f"the browser did not start within {_START_S:.0f} s")


async def _find_page(session: aiohttp.ClientSession, port: int) -> str:
    async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
        return next(str(each["webSocketDebuggerUrl"]) for each in await answer.json() if each["type"] == "page")
