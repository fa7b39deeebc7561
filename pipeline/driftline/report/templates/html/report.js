"use strict";
(function () {
  const root = document.documentElement;
  root.classList.add("js");
  const every = (where, what) => Array.from(where.querySelectorAll(what));
  const chosen = { e: "", t: "", h: "", c: "" };
  const filtered = every(document, "tr.row, tr.hop, table.gate tr[data-h], details.item, details.hop, .change, li[data-h]");
  const selects = every(document, "select[data-filter]");
  const links = every(document, "[data-hop]");
  const drawing = document.querySelector(".graph");
  const grid = document.querySelector("table.matrix");
  const only = document.getElementById("only-changed");

  /* ---- filters: an element stays that has every chosen value, or says nothing about its kind */

  function fits(data) {
    return Object.keys(chosen).every((kind) =>
      chosen[kind] === "" || data[kind] === undefined || data[kind].split(" ").includes(chosen[kind]));
  }

  function apply() {
    filtered.forEach((each) => { each.hidden = !fits(each.dataset); });
    every(document, "table.matrix tbody").forEach((body) => {
      body.hidden = chosen.e !== "" && body.dataset.e !== chosen.e;
    });
    selects.forEach((select) => { select.value = chosen[select.dataset.filter]; });
    links.forEach((link) => {
      link.setAttribute("aria-pressed", String(chosen.h !== "" && link.dataset.hop === chosen.h));
    });
    if (drawing) { drawing.classList.toggle("picking", chosen.h !== ""); }
    count();
    tell();
  }

  function count() {
    every(document, "section.filtered").forEach((section) => {
      const output = section.querySelector("output.count");
      if (!output) { return; }
      const all = every(section, "tr.row, details.item");
      const left = all.filter((each) => !each.hidden);
      const shown = only && only.checked ? left.filter((each) => !each.classList.contains("same")) : left;
      output.textContent = shown.length + " of " + all.length + " items shown";
    });
  }

  function choose(kind, value) {
    chosen[kind] = value;
    apply();
  }

  function clear() {
    Object.keys(chosen).forEach((kind) => { chosen[kind] = ""; });
    apply();
  }

  selects.forEach((select) => {
    select.addEventListener("change", () => choose(select.dataset.filter, select.value));
  });
  every(document, "[data-clear]").forEach((button) => button.addEventListener("click", clear));
  if (only) { only.addEventListener("change", count); }

  /* ---- what was accepted until a day that is over by now: only a browser knows */

  const now = new Date();
  const today = [now.getFullYear(), now.getMonth() + 1, now.getDate()]
    .map((part) => String(part).padStart(2, "0")).join("-");
  every(document, "time.ends").filter((each) => each.dateTime < today).forEach((each) => {
    each.classList.add("over");
    each.append(" (over)");
  });

  /* ---- hops: chosen in the graph, told at the foot of the window */

  const picked = document.createElement("div");
  picked.id = "picked";
  picked.hidden = true;
  picked.setAttribute("role", "status");
  const words = document.createElement("p");
  const figures = document.createElement("a");
  figures.textContent = "its figures";
  const answers = document.createElement("a");
  answers.textContent = "its answers";
  answers.href = "#answers";
  const end = document.createElement("button");
  end.type = "button";
  end.textContent = "show all";
  end.addEventListener("click", clear);
  picked.append(words, answers, figures, end);
  document.body.append(picked);

  function tell() {
    const link = links.find((each) => each.dataset.hop === chosen.h);
    picked.hidden = !link;
    if (!link) { return; }
    const href = link.getAttribute("href");
    const body = document.getElementById(href.slice(1));
    const name = body.closest("details").querySelector("summary .id").textContent;
    const why = body.querySelector("p");
    words.textContent = name + (why ? ": " + why.textContent : "");
    figures.href = href;
  }

  function toggle(link) {
    choose("h", chosen.h === link.dataset.hop ? "" : link.dataset.hop);
  }

  links.forEach((link) => {
    link.setAttribute("role", "button");
    link.addEventListener("click", (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) { return; }
      event.preventDefault();
      toggle(link);
    });
    link.addEventListener("keydown", (event) => {
      if (event.key === " ") {
        event.preventDefault();
        toggle(link);
      }
    });
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && Object.values(chosen).some((value) => value !== "")) { clear(); }
  });

  /* ---- the matrix: one stop of the Tab key, arrows from there */

  let current = null;

  function visible(row) { return row.getClientRects().length > 0; }

  function rows() { return every(grid, "tr.row").filter(visible); }

  function stand(cell, focus) {
    if (!cell) { return; }
    if (current) { current.removeAttribute("tabindex"); }
    current = cell;
    cell.tabIndex = 0;
    if (focus) { cell.focus(); }
  }

  function say(cell) {
    const head = grid.rows[1].cells[cell.cellIndex];
    const key = cell.parentElement.cells[0].querySelector("a") || cell.parentElement.cells[0];
    const label = cell.getAttribute("aria-label");
    document.querySelector(".readout").textContent = label
      ? key.firstChild.textContent.trim() + " in " + head.title + ": " + label : "";
  }

  const steps = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };

  function move(event) {
    const cell = event.target.closest("td");
    if (!cell || !cell.parentElement.classList.contains("row")) { return; }
    const row = cell.parentElement;
    const last = row.cells.length - 1;
    if (event.key === "Enter") {
      const link = row.cells[0].querySelector("a");
      if (link) { link.click(); }
      return;
    }
    let next = null;
    if (steps[event.key]) {
      const step = steps[event.key];
      const all = rows();
      const place = Math.min(Math.max(all.indexOf(row) + step[0], 0), all.length - 1);
      next = all[place].cells[Math.min(Math.max(cell.cellIndex + step[1], 1), last)];
    } else if (event.key === "Home") {
      next = row.cells[1];
    } else if (event.key === "End") {
      next = row.cells[last];
    }
    if (next) {
      event.preventDefault();
      stand(next, true);
    }
  }

  if (grid) {
    grid.setAttribute("role", "grid");
    grid.addEventListener("keydown", move);
    const tell_of = (event) => {
      const cell = event.target.closest("tr.row td");
      if (cell) { say(cell); }
    };
    grid.addEventListener("mouseover", tell_of);
    grid.addEventListener("focusin", tell_of);
    grid.addEventListener("click", (event) => {
      const cell = event.target.closest("tr.row td");
      if (cell) {
        stand(cell, true);
        const link = cell.parentElement.cells[0].querySelector("a");
        if (link) { link.click(); }
      }
    });
    const first = grid.querySelector("tr.row:not(.same)") || grid.querySelector("tr.row");
    if (first) { stand(first.cells[1], false); }
  }

  /* ---- links into what is closed or filtered out */

  function reveal(id) {
    const target = document.getElementById(id);
    if (!target) { return; }
    if (target.closest("[hidden]")) { clear(); }
    for (let box = target.closest("details"); box; box = box.parentElement.closest("details")) {
      box.open = true;
    }
    target.scrollIntoView({ block: "start" });
  }

  function follow() {
    let id = location.hash.slice(1);
    try { id = decodeURIComponent(id); } catch (error) { return; }
    if (id) { reveal(id); }
  }

  window.addEventListener("hashchange", follow);
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[href^='#']");
    if (link && !link.dataset.hop && link.getAttribute("href") === location.hash) { follow(); }
  });
  every(document, "[data-open], [data-close]").forEach((button) => {
    const section = document.getElementById(button.dataset.open || button.dataset.close);
    button.addEventListener("click", () => {
      every(section, "details").filter((box) => !box.hidden).forEach((box) => {
        box.open = Boolean(button.dataset.open);
      });
    });
  });
  apply();
  follow();
  performance.mark("driftline-ready");
}());
