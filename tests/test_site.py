"""The docs site in a real browser (pip install 'ctm[browser]', and a Chromium).

CTM_SITE_PAGES=all looks at every page instead of a handful; CTM_SITE=_docs at a site that is built already.
"""

import os
import re
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.conftest import keep, needs_chromium
from tests.tools import ROOT

pytest.importorskip("playwright.sync_api", reason="playwright is missing: pip install 'ctm[browser]'")
AXE_CORE = pytest.importorskip("axe_playwright_python.base", reason="axe-core is missing: pip install 'ctm[browser]'")
pytestmark = [needs_chromium, pytest.mark.xdist_group("site")]

PAGES = ["index", "tutorials/quickstart", "layers/attention", "guides/method", "guides/reproduce", "beyond", "search"]
if os.environ.get("CTM_SITE_PAGES") == "all":
    found = [p.relative_to(ROOT / "nbs").with_suffix("").as_posix() for p in sorted(ROOT.glob("nbs/**/*.ipynb"))]
    PAGES = [*(re.sub(r"(^|/)\d+_", r"\1", name) for name in found), "api", "search", "genindex"]
SIZES = {"phone": dict(width=390, height=844), "desktop": dict(width=1280, height=900)}
COLORS = ("light", "dark")
FAULTS = """() => {
  const article = document.querySelector('.bd-article') ?? document.body, faults = []
  const over = document.documentElement.scrollWidth - document.documentElement.clientWidth
  if (over > 0) faults.push(`the page is ${over} pixels too wide`)
  for (const x of article.querySelectorAll('img')) {
    const alt = x.getAttribute('alt') ?? ''
    if (!x.complete || !x.naturalWidth) faults.push(`not loaded: ${x.src}`)
    if (alt.length < 10 || /^\\S+\\.(png|svg)$/.test(alt)) faults.push(`alt "${alt}" of ${x.src.slice(-60)}`)
  }
  for (const x of article.querySelectorAll('th, td')) {
    const words = document.createRange()
    words.selectNodeContents(x)
    if (words.getBoundingClientRect().right > x.getBoundingClientRect().right + 1)
      faults.push(`runs into the next cell: ${x.textContent.slice(0, 40)}`)
  }
  for (const x of article.querySelectorAll('table')) {
    const box = x.parentElement
    if (box.clientWidth && Math.max(box.scrollWidth, x.offsetWidth) > box.clientWidth + 1)
      faults.push(`cut table: ${x.textContent.slice(0, 60)}`)
  }
  for (const x of article.querySelectorAll('.math'))
    if (!x.querySelector('mjx-container svg') || x.querySelector('[data-mml-node=merror]'))
      faults.push(`not rendered: ${x.textContent.slice(0, 80)}`)
  const words = document.createTreeWalker(article, NodeFilter.SHOW_TEXT)
  while (words.nextNode()) {
    const inside = words.currentNode.parentElement.closest('pre, code, mjx-container, script, style')
    const raw = !inside && words.currentNode.data.match(/\\$[^$\\n]+\\$|\\\\\\(.+\\\\\\)/)
    if (raw) faults.push(`raw math: ${raw[0]}`)
  }
  return faults
}"""
VIOLATIONS = """async () => (await axe.run({preload: false})).violations
  .filter(v => ['serious', 'critical'].includes(v.impact))
  .map(v => `${v.id}, ${v.nodes.length}: ` + v.nodes.slice(0, 3).map(n => `${n.target} ` +
     (n.any[0]?.message ?? '') + n.html.slice(0, 150)).join(' | '))"""


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def url(site):
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=site))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def watched(browser, url, size="desktop"):
    "A page, and the list of what went wrong on it."
    page, wrong = browser.new_page(viewport=SIZES[size]), []
    page.on("console", lambda m: wrong.append(f"console: {m.text}") if m.type in {"error", "warning"} else None)
    page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
    page.on("requestfailed", lambda r: wrong.append(f"failed: {r.url}"))
    page.on("response", lambda r: wrong.append(f"{r.status}: {r.url}") if r.status >= 400 else None)

    def asked(request):
        if not request.url.startswith(("data:", "blob:", url)):
            wrong.append(f"leaves the page: {request.url}")

    page.on("request", asked)
    return page, wrong


@pytest.mark.parametrize("name", PAGES)
def test_page(url, browser, name):
    page, wrong = watched(browser, url)
    page.goto(f"{url}/{name}.html", wait_until="networkidle")
    page.evaluate(AXE_CORE.AXE_FILE_PATH.read_text(encoding="utf-8"))
    for size, viewport in SIZES.items():
        page.set_viewport_size(viewport)
        page.wait_for_timeout(500)  # the theme lets Tab reach what now scrolls, a moment after the change
        for color in COLORS:
            page.emulate_media(color_scheme=color, reduced_motion="reduce")
            page.wait_for_function(f"document.documentElement.dataset.theme == '{color}'")
            wrong += [f"{size}, {color}: {fault}" for fault in page.evaluate(FAULTS) + page.evaluate(VIOLATIONS)]
            keep(page, f"{name.replace('/', '-')}-{size}-{color}")
    page.close()
    assert not wrong, "\n".join(wrong)


def test_first_screen(url, browser):
    page, wrong = watched(browser, url)
    page.goto(f"{url}/index.html", wait_until="networkidle")
    seen = page.evaluate(
        """() => {
          const inside = x => x.getBoundingClientRect().height && x.getBoundingClientRect().top < innerHeight - 20
          const words = [...document.querySelectorAll('.bd-article :is(p, th, h1)')].filter(inside)
          return words.map(x => x.innerText).join(' ')
        }"""
    )
    for words in ("Pixel masks from image-level labels", "Say what is in each photograph", "The paper", "My images"):
        assert words in seen, f"the first screen does not say {words!r}"
    strip = page.locator('.bd-article img[src$="photographs.jpg"]').bounding_box()
    assert strip["y"] + strip["height"] < SIZES["desktop"]["height"], "the photographs are seen whole"
    shown = page.evaluate("[...document.querySelectorAll('.bd-article img')].map(x => [x.src, x.alt])")
    for source, alt in shown:
        assert re.search(r"/(photographs|explorer)\.jpg$", source), f"not a photograph: {source}"
        assert "synthetic" not in alt, alt
    page.close()
    assert not wrong, "\n".join(wrong)


def test_first_page_is_light(url, browser):
    page, _ = watched(browser, url)
    sizes = {}
    page.on("response", lambda response: sizes.update({response.url: len(response.body())}))
    page.goto(f"{url}/index.html", wait_until="networkidle")
    page.close()
    largest = sorted(sizes.items(), key=lambda item: -item[1])[:5]
    assert sum(sizes.values()) < 1_500_000, largest


def test_the_paper_is_beside_ours(url, browser):
    page, _ = watched(browser, url)
    page.goto(f"{url}/guides/reproduce.html", wait_until="networkidle")
    for name in ("hardware", "weights", "command", "time", "ours", "the paper’s"):
        ends = page.evaluate(
            """name => [...document.querySelectorAll('.bd-article th')]
              .filter(x => x.innerText.trim() === name).map(x => x.getBoundingClientRect().right)""",
            name,
        )
        assert len(ends) == 3 and max(ends) <= SIZES["desktop"]["width"], f"{name}: {ends}"
    page.close()


SEARCHES = {
    "own images": "tutorials/own_images", "GeoTIFF": "tutorials/satellite", "GPU": "guides/reproduce",
    "medical": "guides/datasets", "heatmap": "tutorials/attention", "install": "index", "DINOv2": "guides/extend",
    "CRF": "method/refine", "masking": "masking_ratio",
}  # fmt: skip


def test_search_finds_what_is_asked_for(url, browser):
    page, wrong = watched(browser, url)
    for query, wanted in SEARCHES.items():
        page.goto(f"{url}/search.html?q={query}")
        page.wait_for_function("document.querySelector('#search-results')?.innerText.includes('Search finished')")
        links = page.locator("#search-results ul.search > li > a")
        first = [a.get_attribute("href").partition("#")[0] for a in links.all()[:6]]
        pages = list(dict.fromkeys(first))[:3]
        assert f"{wanted}.html" in pages, f"{query}: {pages}"
        page.wait_for_selector("#search-results p.context")
        for text in page.locator("#search-results p.context").all_inner_texts()[:3]:
            assert re.match(r"\W{0,2}\w", text) and not re.search(r"\b(import|def|class) \w+[:(\n]", text), text
    page.close()
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("word, found", [("masking", "masking_ratio"), ("prune_heads", "pruning")])
def test_search_needs_no_server(site, browser, word, found):
    page, _ = watched(browser, "file:")
    page.goto((site / "search.html").as_uri() + f"?q={word}")
    page.locator(f'#search-results a[href*="{found}.html"]').first.click()
    page.wait_for_url(f"**/{found}.html*")
    assert word in page.locator(".bd-article").inner_text()
    page.close()


def test_search_stays_on_the_page(url, browser):
    page, wrong = watched(browser, url)
    page.goto(f"{url}/index.html")
    page.keyboard.press("Control+k")
    page.keyboard.type("prune_heads")
    page.keyboard.press("Enter")
    page.wait_for_selector('#search-results a[href*="pruning.html"]')
    page.close()
    assert not wrong, "\n".join(wrong)


def tab(page, times):
    "What has the focus after each press of Tab: its name and whether it is in the text."
    for _ in range(times):
        page.keyboard.press("Tab")
        yield page.evaluate(
            "[document.activeElement].flatMap(x => [x.ariaLabel ?? x.title, x.innerText, !!x.closest('.bd-article')])"
            ".map(String)"
        )


@pytest.mark.parametrize("size", SIZES)
def test_keyboard(url, browser, size):
    page, _ = watched(browser, url, size)
    page.goto(f"{url}/tutorials/quickstart.html")
    assert "Skip to main content" in next(tab(page, 1))[1]
    page.keyboard.press("Enter")
    after = list(tab(page, 30))
    assert any(inside == "true" for *_, inside in after), "the skip link leads to the text"
    page.reload()
    seen, menu = set(), "Toggle primary sidebar"
    for name, text, _ in tab(page, 200):
        seen |= {name, text}
        if {"Search", "Color mode", menu} <= seen:
            break
    assert {"Search", "Color mode", menu} <= seen
    if size == "phone":
        page.locator(f'[title="{menu}"], [aria-label="{menu}"]').first.press("Enter")
        assert any("Gallery" in text for _, text, _ in tab(page, 150)), "the contents, in the opened menu"
        page.keyboard.press("Escape")
        page.wait_for_selector("#pst-primary-sidebar-modal", state="hidden")
    page.close()
