"""The HTML report in Chromium: offline, without scripts, by keyboard, dark, narrow, hostile."""

from __future__ import annotations

from functools import cache

import pytest

from driftline.report.candidates import Candidate, Parting
from driftline.report.html.page import render
from driftline.schema.answers import Completion, PinnedPrompt
from driftline.schema.cells import CellSpec
from driftline.schema.hops import Cause, Split
from driftline.schema.scores import ItemState
from tests.browser.conftest import Open, Opened
from tests.factories import completion, report_input
from tests.paths import ROOT
from tests.unit.report_evidence import (
    F32,
    ITEMS,
    PROJECT,
    Q2,
    Q8,
    distributions,
    with_cause,
    with_gate,
    with_hop,
)
from tests.unit.test_html_hostile import CORPUS, everywhere
from tests.unit.test_html_page import WORDS

pytestmark = pytest.mark.browser
WRONG, WORDED = "clauses/c-001", "sql/s-002"


@cache
def report(*, gated: bool = False) -> str:
    """q2_k gets one item wrong because of its weights, q8_0 words another otherwise (numerics)."""

    def answer(each: CellSpec, prompt: PinnedPrompt) -> Completion:
        if (each.id, prompt.key) == (Q2, WRONG):
            return completion(prompt, (1, 4, 2), text="bad")
        if (each.id, prompt.key) == (Q8, WORDED):
            return completion(prompt, (2, 2), text="other")
        return completion(prompt, (1, 2, 2), text="good")

    def verdict(each: CellSpec, prompt: PinnedPrompt) -> ItemState:
        return "wrong" if (each.id, prompt.key) == (Q2, WRONG) else "correct"

    found = report_input(PROJECT, ITEMS, answer=answer, verdict=verdict)
    found = with_cause(found, Q2, Cause(component="weights", reason="stored", margin=2.5))
    found = with_cause(found, Q8, Cause(component="numerics", reason="rounds", near_tie=True))
    for place, child in enumerate(found.hops_by_child):
        whole = distributions(0.001 * place)
        found = with_hop(
            found,
            child,
            split=Split(end_to_end=whole, answers=whole, weights=whole, numerics=whole),
            summary=f"{child} in one sentence",
        )
    likely = (Candidate(2, "▁a", -0.1), Candidate(4, "`", -2.0))
    return render(
        with_gate(found, "why") if gated else found,
        vocabulary=WORDS,
        partings={(f"{F32} → {Q2}", WRONG): Parting(likely, likely, likely)},
    )


def hop(child: str) -> str:
    return f"svg.graph a[href='#hop={child}'] .box"


class TestOpening:
    def test_it_says_nothing_and_asks_for_nothing(self, opened: Open) -> None:
        tab = opened(report())
        tab.page.wait_for_function("performance.getEntriesByName('driftline-ready').length == 1")
        for selector in ("details:not([open]) > summary", "[data-open=hops]"):
            tab.page.locator(selector).first.click()
        tab.quiet()

    def test_with_scripts_off_everything_is_there(self, opened: Open) -> None:
        tab = opened(report(), java_script_enabled=False)
        assert tab.visible("svg.graph a") == 25
        assert tab.visible("tr.row") == 2
        assert tab.visible("label select") == 0
        tab.page.locator("#only-changed").click()
        assert tab.visible("tr.row") == 16
        for summary in tab.page.locator("summary").all():
            if summary.evaluate("each => !each.parentElement.open"):
                summary.click()
        assert tab.visible(".change") == 2
        assert tab.visible("table.figures") == 25
        assert tab.visible("table.settings") == 4
        tab.quiet()

    def test_with_scripts_off_a_link_opens_what_it_leads_to(self, opened: Open) -> None:
        tab = opened(report(), java_script_enabled=False, at=f"#hop={Q2}")
        body = tab.page.locator(f"[id='hop={Q2}']")
        assert body.is_visible()
        tab.page.locator(".why a").last.click()
        assert tab.page.locator(f"[id='item={WRONG}']").is_visible()

    def test_a_deep_link_opens_an_item(self, opened: Open) -> None:
        tab = opened(report(), at=f"#item={WORDED}")
        body = tab.page.locator(f"[id='item={WORDED}']")
        assert body.is_visible()
        assert 0 <= body.evaluate("each => each.getBoundingClientRect().top") < 450


class TestGate:
    def test_a_hop_filters_its_reasons_and_they_lead_to_items(self, opened: Open) -> None:
        tab = opened(report(gated=True))
        rows = "table.gate tbody tr"
        assert tab.visible(rows) == 3
        tab.page.locator(hop(Q8)).click()
        assert tab.visible(rows) == 1
        tab.page.keyboard.press("Escape")
        assert tab.visible(rows) == 3
        tab.quiet()

    def test_only_a_browser_knows_what_is_over(self, opened: Open) -> None:
        for day, over in (("2026-12-30", 0), ("2026-12-31", 0), ("2027-01-01", 1)):
            tab = opened(report(gated=True), clock=f"{day}T12:00:00")
            assert tab.visible("time.over") == over, day
            assert tab.visible("time.ends") == 1
        assert opened(report(gated=True), java_script_enabled=False).visible("time.ends") == 1

    def test_on_a_phone(self, opened: Open) -> None:
        tab = opened(report(gated=True), width=360)
        assert tab.page.evaluate("document.documentElement.scrollWidth") <= 360
        last = tab.page.locator("table.gate tbody tr td:last-child").first
        box = last.bounding_box()
        assert box is not None and box["x"] + box["width"] <= 360


class TestFilters:
    def test_changed_only(self, opened: Open) -> None:
        tab = opened(report())
        assert tab.visible("tr.row") == 2
        tab.page.locator("#only-changed").uncheck()
        assert tab.visible("tr.row") == 16
        assert "16 of 16" in tab.page.locator("#matrix output").inner_text()

    @pytest.mark.parametrize(
        ("kind", "label", "left"),
        [
            ("e", "sql", [WORDED]),
            ("h", Q2, [WRONG]),
            ("c", "numerics", [WORDED]),
            ("c", "text", []),
        ],
    )
    def test_by_evalset_hop_and_component(
        self, opened: Open, kind: str, label: str, left: list[str]
    ) -> None:
        tab = opened(report())
        tab.page.locator(f"select[data-filter={kind}]").select_option(label=label)
        assert tab.visible("tr.row") == len(left)
        assert tab.visible("details.item") == len(left)
        shown = tab.page.locator("details.item >> visible=true").all_inner_texts()
        assert all(text.startswith(key) for text, key in zip(shown, left, strict=True))
        tab.page.locator("[data-clear]").click()
        assert tab.visible("details.item") == 2
        tab.quiet()

    def test_choosing_a_hop_filters_what_follows(self, opened: Open) -> None:
        tab = opened(report())
        tab.page.locator(hop(Q2)).click()
        link = tab.page.locator(f"svg.graph a[href='#hop={Q2}']")
        assert link.get_attribute("aria-pressed") == "true"
        assert tab.visible("tr.row") == 1
        assert tab.visible("details.item") == 1
        assert tab.visible("details.hop") == 1
        assert f"{Q2} in one sentence" in tab.page.locator("#picked").inner_text()
        tab.page.locator("#picked button").click()
        assert link.get_attribute("aria-pressed") == "false"
        assert tab.visible("details.hop") == 25
        assert not tab.page.locator("#picked").is_visible()

    def test_a_link_into_what_is_filtered_out_shows_it_again(self, opened: Open) -> None:
        tab = opened(report())
        tab.page.locator(hop(Q8)).click()
        tab.page.locator(".why a").last.click()
        assert tab.page.locator(f"[id='item={WRONG}']").is_visible()


class TestKeys:
    def test_hops_by_keyboard(self, opened: Open) -> None:
        tab = opened(report())
        tab.page.locator(f"svg.graph a[href='#hop={Q2}']").focus()
        for key in ("Enter", " "):
            tab.page.keyboard.press(key)
            assert tab.visible("details.hop") == (1 if key == "Enter" else 25)
        tab.page.keyboard.press("Enter")
        tab.page.keyboard.press("Escape")
        assert tab.visible("details.hop") == 25

    def test_the_matrix_is_one_stop_and_arrows_move_in_it(self, opened: Open) -> None:
        tab = opened(report())
        assert tab.page.locator("table.matrix td[tabindex]").count() == 1
        tab.page.locator("table.matrix td[tabindex='0']").focus()
        tab.page.keyboard.press("ArrowDown")
        tab.page.keyboard.press("End")
        tab.page.keyboard.press("Home")
        tab.page.keyboard.press("ArrowRight")
        assert focus(tab, "cellIndex") == 2
        assert str(focus(tab, "parentElement.cells[0].textContent")).startswith(WORDED)
        for _ in range(3):
            tab.page.keyboard.press("ArrowUp")
        assert str(focus(tab, "parentElement.cells[0].textContent")).startswith(WRONG)
        assert f"{WRONG} in " in tab.page.locator(".readout").inner_text()
        tab.page.keyboard.press("Enter")
        assert tab.page.url.endswith(f"#item={WRONG}")
        assert tab.page.locator(f"[id='item={WRONG}']").is_visible()

    def test_everything_of_use_can_be_reached_by_tab(self, opened: Open) -> None:
        tab = opened(report())
        stops = set()
        for _ in range(120):
            tab.page.keyboard.press("Tab")
            stops.add(str(focus(tab, "tagName")).lower())
        assert {"a", "input", "select", "button", "td", "summary"} <= stops


def focus(tab: Opened, what: str) -> object:
    return tab.page.evaluate(f"document.activeElement.{what}")


class TestLooks:
    def test_dark_mode(self, opened: Open) -> None:
        shades = []
        for scheme in ("light", "dark"):
            tab = opened(report(), color_scheme=scheme)
            shades.append(tab.page.evaluate("getComputedStyle(document.body).backgroundColor"))
        assert shades[0] != shades[1]

    @pytest.mark.parametrize("width", [360, 768, 1280])
    def test_nothing_is_wider_than_the_window(self, opened: Open, width: int) -> None:
        tab = opened(report(), width=width)
        tab.page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
        assert tab.page.evaluate("document.documentElement.scrollWidth") == width

    def test_a_phone_gets_the_lineage_as_a_tree(self, opened: Open) -> None:
        tab = opened(report(), width=360)
        assert tab.visible("svg.graph") == 0
        assert tab.visible(".tree li") == 26
        tab.page.locator(f".tree a[href='#hop={Q2}']").click()
        assert tab.visible("details.item") == 1

    def test_print_leaves_out_what_is_no_use_on_paper(self, opened: Open) -> None:
        tab = opened(report(), width=794)
        tab.page.emulate_media(media="print")
        assert tab.visible("nav") == 0
        assert tab.visible("#matrix .controls") == 0
        assert tab.visible("svg.graph") == 1
        assert tab.page.evaluate("document.documentElement.scrollWidth") <= 794


class TestHostile:
    @pytest.mark.parametrize("text", CORPUS, ids=range(len(CORPUS)))
    def test_nothing_of_it_runs_or_is_asked_for(self, opened: Open, text: str) -> None:
        tab = opened(everywhere(text), width=360)
        tab.page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
        assert tab.page.evaluate("document.scripts.length") == 1
        assert (
            tab.page.evaluate("document.querySelectorAll('iframe, img, form, object').length") == 0
        )
        assert tab.page.evaluate("document.documentElement.scrollWidth") == 360
        tab.quiet()

    def test_the_policy_stops_what_escaping_would_not(self, opened: Open) -> None:
        """Were a text ever let through, it would still not run: the policy is really in force."""
        hole = "<p onclick='document.title=1' id='hole'>x</p><script>document.title='2'</script>"
        tab = opened(report().replace("</main>", f"{hole}</main>"))
        tab.page.evaluate("document.getElementById('hole').click()")
        assert tab.page.title() == "Lineage and drift"
        assert len(tab.said) == 2
        assert all("Content Security Policy" in message for message in tab.said)


class TestEmbeddedDefault:
    """The page of the embedded default, as `make run` makes it and git has it."""

    @pytest.fixture
    def page(self) -> str:
        return (ROOT / "reports" / "lineage.html").read_text(encoding="utf-8")

    def test_it_opens_in_silence_and_says_the_verdict(self, opened: Open, page: str) -> None:
        tab = opened(page)
        top = tab.page.locator("#top").inner_text()
        assert top.startswith("Gate: pass. ")
        assert "transformers/audit/checkpoint → mlx/audit/4bit" in top and "pods/pods-040" in top
        tab.page.locator(".why a").last.click()
        body = tab.page.locator("[id='item=pods/pods-040']")
        assert "kubectl cordon dev-node-11" in body.inner_text()
        tab.quiet()

    def test_scripts_off(self, opened: Open, page: str) -> None:
        with_scripts = opened(page)
        names = "h2, details.hop, details.item, table.matrix tbody tr, svg.graph a, table.settings"
        count = with_scripts.page.locator(names).count()
        without = opened(page, java_script_enabled=False)
        assert without.page.locator(names).count() == count > 200
        assert without.visible("svg.graph a") == 18
        without.quiet()

    def test_filters_and_keys(self, opened: Open, page: str) -> None:
        tab = opened(page)
        everything = tab.visible("details.item")
        tab.page.locator("svg.graph a[href='#hop=mlx/audit/4bit']").focus()
        tab.page.keyboard.press("Enter")
        assert 0 < tab.visible("details.item") < everything
        tab.page.keyboard.press("Escape")
        assert tab.visible("details.item") == everything
        tab.quiet()

    @pytest.mark.parametrize("scheme", ["light", "dark"])
    @pytest.mark.parametrize("width", [360, 1280])
    def test_no_overflow(self, opened: Open, page: str, width: int, scheme: str) -> None:
        tab = opened(page, width=width, color_scheme=scheme)
        tab.page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
        assert tab.page.evaluate("document.documentElement.scrollWidth") == width
        tab.quiet()
