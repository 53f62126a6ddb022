#include "worker/ctl/limits_table.h"

#include "worker/ctl/json.h"
#include "worker/ctl/table.h"

namespace penstock::ctl {
namespace {

// The answer, if it is an object with an array of this name.
Result<JsonElement> read(simdjson::dom::parser& parser, const std::string& json,
                         std::string_view array) {
  JsonElement root;
  simdjson::dom::array found;
  if (!parse_object(parser, json, root) || root.at_key(array).get(found) != simdjson::SUCCESS) {
    return Error{"the console's answer is no JSON object with '" + std::string(array) +
                 "'; is the edge of the same version as penstockctl?"};
  }
  return root;
}

Row limit_row(JsonElement limit, bool live, bool all) {
  const bool resets = live && cell(limit, "reset_seconds") != "-";
  Row row = {cell(limit, "zone"),
             cell(limit, "name"),
             cell(limit, "unit"),
             cell(limit, "algorithm"),
             cell(limit, "used"),
             cell(limit, "limit"),
             cell(limit, "burst"),
             cell(limit, "remaining"),
             resets ? duration(static_cast<int64_t>(number_of(limit, "reset_seconds"))) : "-"};
  if (all) {
    row.emplace_back(live ? "yes" : "no");
  }
  return row;
}

}  // namespace

Result<std::string> limits_table(const std::string& json, bool all) {
  simdjson::dom::parser parser;
  const auto root = read(parser, json, "limits");
  if (!root) {
    return root.error();
  }
  std::vector<Row> rows = {
      {"ZONE", "NAME", "UNIT", "ALGORITHM", "USED", "LIMIT", "BURST", "LEFT", "RESETS IN"}};
  if (all) {
    rows.front().emplace_back("LIVE");
  }
  for (const JsonElement limit : elements_of(*root, "limits")) {
    const bool live = truth_of(limit, "live", true);
    if (live || all) {
      rows.push_back(limit_row(limit, live, all));
    }
  }
  const std::string heading = "key " + cell(*root, "key");
  return rows.size() > 1 ? heading + "\n\n" + render(rows)
                         : heading + ": nothing is counted for this key\n";
}

Result<std::string> reset_line(const std::string& json) {
  simdjson::dom::parser parser;
  const auto root = read(parser, json, "reset");
  if (!root) {
    return root.error();
  }
  std::string names;
  for (const JsonElement name : elements_of(*root, "reset")) {
    std::string_view text;
    if (name.get(text) == simdjson::SUCCESS) {
      names += (names.empty() ? "" : ", ") + printable(text);
    }
  }
  return "key " + cell(*root, "key") + ": " +
         (names.empty() ? "nothing was counted for this key" : "reset " + names) + "\n";
}

Result<std::string> offenders_table(const std::string& json) {
  simdjson::dom::parser parser;
  const auto root = read(parser, json, "offenders");
  if (!root) {
    return root.error();
  }
  std::vector<Row> rows = {{"KEY", "LIMIT", "REFUSED"}};
  for (const JsonElement offender : elements_of(*root, "offenders")) {
    rows.push_back({cell(offender, "key"), cell(offender, "limit"), cell(offender, "refused")});
  }
  return rows.size() > 1 ? render(rows) : "nobody was refused\n";
}

}  // namespace penstock::ctl
