"""``python -m hessrank`` is ``hessrank``."""

import sys

from hessrank.cli import main

if __name__ == "__main__":
    sys.exit(main())
