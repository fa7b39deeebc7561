"""One self-contained page: each section drawn, every text made harmless.

- `charts`: small static charts as SVG: every number of theirs is written beside them or in their
  label.
- `graph_svg`: the lineage as a drawing: cells as boxes with what their artifact is, hops as
  weighted lines.
- `hops_html`: per hop: what it cost and why, its figures with intervals, small charts, text,
  stored tensors.
- `items_html`: one golden prompt in full: what changed it, both answers side by side, what every
  cell saw.
- `layout`: a layered layout of a forest: one column per generation, no two boxes overlap; pure.
- `markup`: pieces of HTML: our own templates, filled with text that is escaped on the way.
- `matrix`: items x cells: every score state of every item that changed, and of the others where
  they fit.
- `names`: what links and filters of a page call hops, items, evalsets and tags.
- `page`: `reports/lineage.html`: the evidence as one file that needs nothing but a browser.
- `prose`: text that anybody could have written, as HTML that shows what it is and does nothing.
"""
