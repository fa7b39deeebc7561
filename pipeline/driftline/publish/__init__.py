"""The gate's verdict for CI: JUnit, a job's summary, annotations, a comment.

- `answers`: answers of the working tree for the items a gate report names, each checked by the
  evidence.
- `brief`: the gate in short as Markdown: for a job's summary, and for a comment on a pull request;
  pure.
- `github`: the gate as annotations of GitHub Actions: workflow commands, one a line; pure.
- `junit`: the gate as JUnit XML: a suite of its checks, then one of each cell with a case per
  item; pure.
"""
