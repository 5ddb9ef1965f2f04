"""Building, running and measuring emitted C on this machine and on emulated cores."""
