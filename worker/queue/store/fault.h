// Fault: what a transaction ran into, and whose it is.
#pragma once

#include "shared/base/result.h"

namespace penstock::queue {

struct Fault {
  Error error;
  // The fault of one operation: its file is gone, on a bad block, in the way. Then that operation
  // fails alone, and others go on. A fault of the disk or the database stops every promise until it
  // has passed.
  bool own = false;
};

}  // namespace penstock::queue
