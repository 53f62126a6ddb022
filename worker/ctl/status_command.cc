#include "worker/ctl/operate.h"
#include "worker/ctl/status_table.h"

namespace penstock::ctl {

Outcome run_status(const Arguments& arguments) {
  if (!arguments.words().empty()) {
    return misused("status takes no '" + arguments.words()[0] + "'");
  }
  return with_penstockd(arguments, [&](Penstockd& penstockd) {
    auto answer = penstockd.status();
    return answer ? tell(arguments, *std::move(answer), status_table) : failed(answer.error());
  });
}

}  // namespace penstock::ctl
