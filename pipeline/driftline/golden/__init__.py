"""Golden prompts: loaded, checked, pinned, and answers graded.

- `check_faults`: what would keep a well-formed check from ever saying something about an answer;
  pure.
- `evalset`: evalsets: `evalsets/<name>.jsonl`, one golden prompt per line, checked before any
  model runs.
- `grade`: grading: a completion against its golden prompt, nothing but a function of the two.
- `prompts`: golden prompts → pinned prompts: rendered and tokenized once, by the source's own
  tokenizer.
- `sql_forms`: SQL in a form where spellings of one thing are equal, and where two forms differ;
  pure.
- `strict`: parsers that judge an expectation in an evalset and a model's answer alike: strict, and
  bounded.
"""
