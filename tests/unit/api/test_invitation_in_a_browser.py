"""An invitation that is opened in a real Chromium: the page shows its commands, and no server gets its token."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from playwright.async_api import Page, async_playwright

from re6st import cert
from tests.unit.registry_world import World

CHROMIUM = "/usr/bin/chromium"
TOKEN = "qwertzuiopasdfghjk"
FINGERPRINT = "sha256:" + "3f9a" * 16


@pytest.mark.skipif(not Path(CHROMIUM).exists(), reason="no Chromium on this machine")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_commands_are_shown_and_copied_and_the_token_stays_in_the_browser(
    tmp_path: Path,
    authority: cert.Authority,
    nodes: dict[str, cert.Identity],
    caplog: pytest.LogCaptureFixture,
    scheme: str,
) -> None:
    caplog.set_level(logging.DEBUG)
    world = World(tmp_path, authority, nodes["1/16"])
    wrong: list[str] = []
    asked: list[str] = []

    async def look(page: Page, place: str) -> None:
        page.on("console", lambda message: wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        await page.goto(f"{place}#{FINGERPRINT},token={TOKEN}")
        assert await page.inner_text("#join") == f"sudo re6st-conf join '{place}#{FINGERPRINT},token={TOKEN}'"
        assert place in await page.inner_text("#which")
        assert not await page.is_visible("#wrong")
        await page.click(".copy button >> nth=1")
        await page.wait_for_selector("text=Copied")
        assert await page.evaluate("document.documentElement.scrollWidth") == 390, "it fits on a telephone"
        # Whoever made the link must not choose the words of a command that people copy; nor is half of one shown.
        for fragment in (
            f"{FINGERPRINT},token={TOKEN}';reboot;'",
            f"{FINGERPRINT},token={TOKEN}%27;reboot",
            f"token={TOKEN}",
            FINGERPRINT,
        ):
            await page.goto("about:blank")
            await page.goto(f"{place}#{fragment}")
            assert await page.inner_text("#join") == "sudo re6st-conf join 'INVITATION'"
            assert await page.is_visible("#wrong")
        await page.goto("about:blank")
        await page.goto(place)
        assert not await page.is_visible("#wrong")

    async def test(world: World) -> None:
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"], timeout=120_000)
            context = await browser.new_context(
                viewport={"width": 390, "height": 844}, color_scheme="dark" if scheme == "dark" else "light"
            )
            await look(await context.new_page(), f"http://127.0.0.1:{world.port}/")
            await browser.close()

    world.run(test)
    assert wrong == []
    assert {url.split("/")[2] for url in asked if url != "about:blank"} == {f"127.0.0.1:{world.port}"}
    assert TOKEN not in caplog.text
    assert FINGERPRINT not in caplog.text
    assert not world.registry.events.newest(9)
