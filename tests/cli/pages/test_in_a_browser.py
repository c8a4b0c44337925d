"""The pages in headless Chromium: no error, no request, nothing too wide, and tooltips."""

import pytest

from benchmarks import browser as browsers
from gradloop.cli import pages
from tests.cli.pages.folders import CONFIG, CSV, make_folder, write_predictions

pytestmark = pytest.mark.skipif(
    browsers.CHROMIUM is None, reason="Chromium is not installed: apt-get install chromium"
)
_LONG = "a-name-without-any-space-" * 12
_NAMES = ["T-shirt/top", "x" * 60, "<b>bold</b>", *(f"class {i}" for i in range(3, 10))]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with browsers.running(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture(scope="module")
def page_paths(tmp_path_factory):
    """The page of a run that has all, of one that has long names, of an empty one; of several."""
    root = tmp_path_factory.mktemp("runs")
    run = make_folder(root / "run", log="warning: too warm\n")
    write_predictions(run, num_classes=10, class_names=_NAMES, num_examples=400)
    config = CONFIG | {"run_name": _LONG, "dataset": _LONG, "tags": [_LONG, "<script>"], "seed": 7}
    long = make_folder(
        root / "long", config=config, csv=CSV.replace("accuracy", _LONG), log=f"warning: {_LONG}"
    )
    write_predictions(long, num_classes=40, class_names=[f"{_LONG} {i}" for i in range(40)])
    (root / "empty").mkdir()
    compared = pages.compare([run, long, run])
    return {
        **{path.name: pages.write(path) for path in (run, long, root / "empty")},
        "compare": compared.write_page(root),
    }


@pytest.mark.parametrize("width", [400, 1400])
@pytest.mark.parametrize("name", ["run", "long", "empty", "compare"])
def test_a_page_loads_nothing_reports_nothing_and_fits(browser, page_paths, name, width):
    browser.open(page_paths[name], width)
    browser.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    assert browser.evaluate("document.scrollingElement.scrollWidth") <= width
    requests = [one["request"]["url"] for one in browser.events["Network.requestWillBeSent"]]
    others = [url for url in requests if not url.startswith("data:")]
    assert others == [page_paths[name].resolve().as_uri()], "the page itself, and nothing else"
    assert browser.events["Log.entryAdded"] == []
    assert browser.events["Runtime.exceptionThrown"] == []
    assert browser.events["Runtime.consoleAPICalled"] == []


_TEXTS_OUTSIDE = """
[...document.querySelectorAll("svg text")].map((one) => one.getBoundingClientRect())
  .filter((box) => box.left < -1 || box.right > innerWidth + 1).length
"""
_SMALLEST_FONT = """
Math.min(...[...document.querySelectorAll("svg text")].map((one) =>
  parseFloat(getComputedStyle(one).fontSize) *
    one.ownerSVGElement.getBoundingClientRect().width / 400))
"""


@pytest.mark.parametrize("width", [400, 1400])
def test_labels_of_curves_can_be_read(browser, page_paths, width):
    browser.open(page_paths["run"], width)
    assert browser.evaluate("document.querySelectorAll('svg').length") == 3
    assert browser.evaluate(_TEXTS_OUTSIDE) == 0
    assert browser.evaluate(_SMALLEST_FONT) >= 9.0


def test_shares_of_time_are_seen_at_400_pixels(browser, page_paths):
    browser.open(page_paths["run"], 400)
    right = "document.querySelector('.bar').getBoundingClientRect().right"
    assert 0 < browser.evaluate(right) <= 400


def test_a_pointer_and_keys_name_the_points(browser, page_paths):
    browser.open(page_paths["run"], 1400)
    box = browser.evaluate(
        "(() => { const b = document.querySelector('svg').getBoundingClientRect();"
        "return [b.left + b.width / 2, b.top + b.height / 2]; })()"
    )
    browser.call("Input.dispatchMouseEvent", type="mouseMoved", x=box[0], y=box[1])
    tip = "document.querySelector('.tip')"
    assert browser.evaluate(f"{tip}.textContent") == "epoch 2\ntraining: 1\nvalidation: 0.75"
    browser.call("Input.dispatchMouseEvent", type="mouseMoved", x=1, y=1)
    assert browser.evaluate(f"{tip}.hidden") is True
    browser.evaluate("document.querySelector('svg').focus()")
    for _ in range(2):
        browser.call("Input.dispatchKeyEvent", type="keyDown", key="ArrowRight")
    assert browser.evaluate(f"{tip}.textContent").startswith("epoch 2")


_CONTRASTS = """
(() => {
  const light = (color) => {
    const most = color.startsWith("rgb(") ? 255 : 1;
    const parts = color.match(/[\\d.]+/g).slice(0, 3).map((v) => v / most);
    const [r, g, b] = parts.map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (one) => {
    for (; one; one = one.parentElement) {
      const color = getComputedStyle(one).backgroundColor;
      if (/^(rgb|color)\\(/.test(color)) return color;
    }
    return "rgb(255, 255, 255)";
  };
  const texts = "p, dt, dd, th, td, h1, h2, h3, .status, .tag, figcaption, .cell";
  return [...document.querySelectorAll(texts)]
    .filter((one) => one.textContent.trim()).map((one) => {
      const [a, b] = [light(getComputedStyle(one).color), light(ground(one))].sort((x, y) => y - x);
      return [(a + 0.05) / (b + 0.05), one.className || one.tagName];
    }).sort((x, y) => x[0] - y[0])[0];
})()
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast_in_both_schemes(browser, page_paths, scheme):
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.call("Emulation.setEmulatedMedia", features=features)
    browser.open(page_paths["run"], 1400)
    ground = browser.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(255, 255, 255)") == (scheme == "light")
    ratio, where = browser.evaluate(_CONTRASTS)
    assert ratio >= 4.5, where


def test_paper_is_white_in_the_dark_scheme(browser, page_paths):
    features = [{"name": "prefers-color-scheme", "value": "dark"}]
    browser.call("Emulation.setEmulatedMedia", media="print", features=features)
    try:
        browser.open(page_paths["run"], 760)
        ground = browser.evaluate("getComputedStyle(document.body).backgroundColor")
        assert ground == "rgb(255, 255, 255)"
        ratio, where = browser.evaluate(_CONTRASTS)
        assert ratio >= 4.5, where
    finally:
        browser.call("Emulation.setEmulatedMedia", media="", features=[])
