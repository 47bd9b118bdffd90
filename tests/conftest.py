"""Settings that hold for all tests."""

import os

# As the command line does: spinning threads would make the tests several times slower beside anything else.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
