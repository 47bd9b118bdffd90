"""`python -m pretextlm` is `pretextlm`, and so is `torchrun -m pretextlm` over several processes."""

from pretextlm.cli.main import main

main()
