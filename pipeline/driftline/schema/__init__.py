"""The file formats: frozen value types in which an unknown field is an error.

- `answers`: pinned prompts, and what runtimes answer to them.
- `artifacts`: artifacts and the records of the conversions that made them.
- `budget`: the error budget of a hop: what each group of stored tensors costs alone.
- `cells`: cells: what is scored, and how it went.
- `comparison`: two commits of evidence against each other: which inputs differ, and what that
  changed.
- `forced`: the fixed text every cell of a variant is teacher-forced through, and what is kept of
  it.
- `gate`: the gate: policy, what was accepted, and the verdict on one commit's evidence.
- `hops`: hops between cells, what changed over them, and because of what.
- `imports`: cells that another machine made: `imports/<cell>/import.json`.
- `items`: golden prompts and their checks, as evalset files have them.
- `lineage`: `reports/lineage/`: the evidence of one commit, in git, that audits and comparisons
  read.
- `messages`: chat messages: what a golden prompt asks, and what a runtime renders by its own
  template.
- `published`: JSON Schemas of the formats that others may read, as files beside the documentation.
- `release`: release records: the evidence of one commit, frozen under a name.
- `scores`: verdicts on answers.
- `statistics`: figures of drift, each with its uncertainty.
- `tasks`: what the processes of one cell are told: the probe writes it, stages that run a model
  read it.
- `text`: the text component of drift: what a runtime made of a prompt, and how its answers end.
- `values`: the file formats: frozen value types in which an unknown field is an error.
- `weights`: the weights component of drift: what is stored in an artifact, held against what it
  came from.
"""
