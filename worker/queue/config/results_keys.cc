#include "worker/queue/config/results_keys.h"

#include <algorithm>
#include <array>

#include "worker/queue/config/names.h"

namespace penstock::queue {
namespace {

// "https://s3.example.com:9000", without a path.
bool is_address(std::string_view url) {
  const bool http = url.starts_with("https://") || url.starts_with("http://");
  const size_t begin = http ? url.find("://") + 3 : 0;
  return http && url.size() > begin && url.find_first_of("/?#@ ", begin) == std::string_view::npos;
}

void read_s3(Section& section, const std::string& file, ResultsConfig& results) {
  if (!is_address(results.s3)) {
    section.complain("s3", "must be https://HOST or https://HOST:PORT, without a path");
  }
  for (const auto& [key, value] :
       {std::pair{"bucket", &results.bucket}, {"key_file", &results.key_file}}) {
    if (value->empty()) {
      section.complain(key, "is missing; `s3` needs it");
    }
  }
  results.key_file = results.key_file.empty() ? "" : relative_to(file, results.key_file);
}

}  // namespace

ResultsConfig read_results(const YAML::Node& node, const std::string& file,
                           Complaints& complaints) {
  ResultsConfig results;
  if (!node.IsDefined()) {
    return results;
  }
  Section section(node, "results", complaints);
  section.text("s3", results.s3);
  section.text("bucket", results.bucket);
  section.text("region", results.region);
  section.text("key_file", results.key_file);
  section.text("prefix", results.prefix);
  section.text("folder", results.folder);
  section.size("from", results.from_bytes, 1, int64_t{16} << 20);
  std::string serve = "proxy";
  section.choice("serve", serve, {"proxy", "redirect"});
  results.redirect = serve == "redirect";
  if (results.s3.empty() == results.folder.empty()) {
    section.complain("s3", "write either `s3` or `folder`, where large results lie for all hosts");
  } else if (!results.s3.empty()) {
    read_s3(section, file, results);
  } else {
    results.folder = relative_to(file, results.folder);
    if (results.redirect) {
      section.complain("serve", "redirect needs `s3`: a folder has no addresses");
    }
  }
  section.done();
  return results;
}

}  // namespace penstock::queue
