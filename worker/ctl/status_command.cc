#include "worker/ctl/cluster_table.h"
#include "worker/ctl/operate.h"
#include "worker/ctl/status_table.h"

namespace penstock::ctl {

Outcome run_status(const Arguments& arguments) {
  if (!arguments.words().empty()) {
    return misused("status takes no '" + arguments.words()[0] + "'");
  }
  if (arguments.has("cluster")) {
    return ask_and_tell(arguments, "GET", "/cluster", "", cluster_table);
  }
  return with_penstockd(arguments, [&](Penstockd& penstockd) {
    auto answer = penstockd.status();
    return answer ? tell(arguments, *std::move(answer), status_table) : failed(answer.error());
  });
}

}  // namespace penstock::ctl
