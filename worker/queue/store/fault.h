// Fault: what a transaction ran into, and whose it is.
#pragma once

#include "shared/base/result.h"

namespace penstock::queue {

struct Fault {
  Error error;
  // Of one operation: its file is gone, on a bad block, in the way. That operation fails alone, and
  // others go on. One of the disk or of the database stops every promise until it has passed.
  bool own = false;
};

}  // namespace penstock::queue
