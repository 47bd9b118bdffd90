"""How fast every objective turns text into batches, on one core, beside what people use today.

    python -m benchmarks.objectives [--only NAME] [--turns N] [--quick] [--json FILE]

Three times are taken, all as processor time of the whole process:

* corrupt: from rows of tokens in memory to all arrays of the batch. Targets and ratios are for this one;
* read + corrupt: the reader's work counted in. Rows lie anywhere in a split of some tens of millions of tokens, and
  every turn reads others, so that they come from memory and not from the cache;
* all, for rows that are pairs: the work that is done once an epoch (which sentences pair up, which pairs share a row)
  too, as far as it falls on these rows. Of pairs, target and ratio are for this one: there, making rows is the work.

A peer begins with what it takes: rows, documents as lists of sentences, or pairs, ready in memory as Python lists or
arrays, whichever suits it; reading them is not charged. It ends with a padded batch, as ours. Where a library of
today has a collator for an objective, this is the peer: Transformers' (5.x has none for sentence order). Else it is a
plain loop over examples, in the manner of the code that came with the paper, written for this benchmark. Where rows of
a peer are of one size, it is let off padding; loops use numpy inside a row where that is faster than Python's lists.
Their batches hold less than ours: most say nothing of documents and positions.

Ours and its peers take turns, so that a slow moment of the machine meets all of them; of each the best turn counts,
since what else runs on a machine can only add to processor time (by emptying caches); the spread says how far the
median turn lies above the best. Tokens are tokens of text: neither special ones nor padding, and what a row reads again
of the row before counts once.

Text is random: token ids follow Zipf's law, documents have some 400 tokens, sentences 20, words 1 to 3. Filling in the
middle depends on how tokens are spelled, and gets real text with a tokenizer trained on it.
"""
