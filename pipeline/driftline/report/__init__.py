"""Evidence for people: HTML, Markdown, the terminal, metrics. Nothing is measured here.

- `candidates`: what each cell was about to say where two answers part: its most likely tokens, as
  it kept them.
- `changes`: which answers changed, over which hops, worst first: the same for every report; pure.
- `comparison`: a comparison of two commits for a terminal and as Markdown; computes no number.
- `context`: what the Markdown and the HTML report show alike: their templates know it by the same
  names.
- `escape`: making hostile text harmless: whatever a model, a file or a user wrote, shown as what
  it is.
- `explain`: one golden prompt's path through the lineage, as text that is safe in a terminal.
- `figures`: figures as text. Whatever has no figure is a word, never a zero.
- `fitting`: making Markdown fit into a number of bytes: as many texts as there is room for; pure.
- `gather`: everything a report shows, read from the project's artifacts.
- `graph`: the lineage as a Mermaid flowchart: artifacts, the conversions between them, what runs
  them.
- `heatmap`: the error budget as a picture and as a table: layers down, modules across.
- `hops`: what was measured over each hop and in each cell, in the order a reviewer wants it: worst
  first.
- `html`: one self-contained page: each section drawn, every text made harmless.
- `machines`: where each cell ran: machines, each said once with the cells it ran.
- `markdown`: `reports/lineage.md`: the evidence as one Markdown file that GitHub can show.
- `markdown_items`: the answers that changed as Markdown shows them, still unescaped.
- `metrics`: `reports/metrics.json`: the report's figures as a tree of numbers for `dvc metrics`.
- `model`: what a report is made of: evidence and figures that others measured.
- `plots`: `reports/plots/*.csv`: the report's figures as tables that `dvc plots` draws, with
  `dvc.yaml`.
- `release`: `reports/releases/<name>.md`: a release for whoever reviews it, from its record alone.
- `settings`: the runtime matrix: what was in force in each cell, said once where cells agree.
- `stored`: what is stored in each artifact, tensor by tensor: how far it is, and what explains it.
- `terminal`: `driftline show`: cells, hops and the worst answers as tables that fit the terminal.
- `verdict`: the verdict and why: the sentences a reviewer reads first, each with a place and an
  example.
- `views`: the report's tables as plain rows, still unescaped: the template escapes what it prints.
"""
