#include "shared/limit/table.h"

namespace penstock::limit {

template class BasicTable<NoSync>;

}  // namespace penstock::limit
