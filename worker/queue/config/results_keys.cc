#include "worker/queue/config/results_keys.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdint>

#include "worker/queue/config/names.h"

namespace penstock::queue {
namespace {

bool is_port(std::string_view digits) {
  uint16_t port = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), port);
  return error == std::errc() && end == digits.data() + digits.size() && port != 0 &&
         digits[0] != '0';
}

// "https://s3.example.com:9000" or "https://[2001:db8::1]:9000", without a path. Its port is left
// out if it is the scheme's own, as it is in the Host header, which is signed. False: it is none.
bool read_address(std::string& url) {
  const bool https = url.starts_with("https://");
  if (!https && !url.starts_with("http://")) {
    return false;
  }
  const size_t begin = url.find("://") + 3;
  const bool six = url.compare(begin, 1, "[") == 0;
  const size_t end = six ? url.find(']', begin) + 1 : std::min(url.find(':', begin), url.size());
  const std::string_view port = std::string_view(url).substr(end);
  if (end <= begin || url.find_first_of("/?#@ ", begin) != std::string::npos ||
      (!port.empty() && (port[0] != ':' || !is_port(port.substr(1))))) {
    return false;
  }
  if (port == (https ? ":443" : ":80")) {
    url.resize(end);
  }
  return true;
}

void read_s3(Section& section, const std::string& file, ResultsConfig& results) {
  if (!read_address(results.s3)) {
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
