"The scripts of data_prep/ are no package: their folder is put where modules are looked for."

import sys

from tests.tools import ROOT

sys.path.insert(0, str(ROOT / "data_prep"))
