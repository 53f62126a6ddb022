#include "shared/base/version.h"

namespace penstock {

const char* version() noexcept { return PENSTOCK_VERSION; }

}  // namespace penstock
