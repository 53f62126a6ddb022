#include "worker/ctl/findings.h"

#include "worker/ctl/json.h"
#include "worker/ctl/table.h"

namespace penstock::ctl {
namespace {

std::string json_of(const queue::Finding& finding) {
  return R"({"level":)" + json_text(name_of(finding.level)) + R"(,"about":)" +
         json_text(finding.about) + R"(,"text":)" + json_text(finding.text) + R"(,"advice":)" +
         (finding.advice.empty() ? "null" : json_text(finding.advice)) + "}";
}

}  // namespace

Outcome tell_findings(const Arguments& arguments, const std::vector<queue::Finding>& findings) {
  const queue::Finding::Level worst = level_of(findings);
  std::string text;
  if (arguments.has("json")) {
    for (const queue::Finding& each : findings) {
      text += (text.empty() ? "" : ",") + json_of(each);
    }
    text = R"({"level":)" + json_text(name_of(worst)) + R"(,"findings":[)" + text + "]}\n";
  } else {
    std::vector<Row> rows = {{"", "WHAT", "IS"}};
    for (const queue::Finding& each : findings) {
      rows.push_back({name_of(each.level), printable(each.about),
                      printable(each.advice.empty() ? each.text : each.text + "; " + each.advice)});
    }
    text = render(rows);
  }
  return {static_cast<int>(worst), text, true};
}

}  // namespace penstock::ctl
