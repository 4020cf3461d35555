"""A ``command`` prefix of the roster that puts the fake agent in the real one's place.

    command = ["python", "-m", "tests.crash.stand_in"]

The command line that mas makes for the real agent follows it.
"""

import sys

from mas.testing import fake_agent

if __name__ == "__main__":
    sys.argv = [sys.argv[0], *sys.argv[sys.argv.index("--id") :]]
    fake_agent.main()
