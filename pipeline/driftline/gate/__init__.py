"""The gate: policy x evidence x blessings, to one verdict.

- `blessings`: reasons that somebody accepted: what they cover, and until when; pure.
- `counts`: checks that count, or hold a measured divergence against its limit; pure.
- `evaluation`: the gate: policy x evidence x blessings → one verdict with its reasons; pure.
- `judgement`: the gate on the working tree or a commit: reads policy, blessings and evidence, then
  judges.
- `margins`: how much is lost at most, and at least, given how few items were asked; pure.
- `policy`: the gate's policy: read from params.yaml, and which limits it sets on which items;
  pure.
- `readings`: what the gate reads of one hop's evidence; pure.
- `rows`: one row of a gate report, and the words it is made of; pure.
- `scores`: checks of scores by interval, corrected for how many there are; pure.
- `words`: what every output of the gate says about a check, in the same words; pure.
"""
