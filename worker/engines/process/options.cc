#include "worker/engines/process/options.h"

#include <string_view>

#include "worker/pool/options.h"

namespace penstock::process {
namespace {

struct Number {
  const char* key;
  int64_t Options::*field;
};
constexpr Number kNumbers[] = {{"timeout_ns", &Options::timeout_ns},
                               {"ready_timeout_ns", &Options::ready_timeout_ns},
                               {"grace_ns", &Options::grace_ns},
                               {"memory_limit", &Options::memory_limit_bytes},
                               {"max_scratch", &Options::max_scratch_bytes},
                               {"max_result", &Options::max_result_bytes},
                               {"max_line", &Options::max_line_bytes},
                               {"max_preview", &Options::max_preview_bytes}};

// Whether there is such an option, and it was good.
bool take(const std::string& key, const std::string& value, Options& out) {
  if (key == "user" || key == "folder") {
    (key == "user" ? out.user : out.folder) = value;
    return true;
  }
  for (const Number& number : kNumbers) {
    if (key == number.key) {
      return parse_number<int64_t>(value, 0, INT64_MAX, out.*number.field);
    }
  }
  return key.starts_with("command.");
}

}  // namespace

Result<Options> parse_options(const std::map<std::string, std::string>& options) {
  Options out;
  for (const auto& [key, value] : options) {
    if (!take(key, value, out)) {
      return Error{
          std::string("the process engine has no option ").append(key).append("=").append(value)};
    }
  }
  for (auto word = options.find("command.0"); word != options.end();
       word = options.find("command." + std::to_string(out.command.size()))) {
    out.command.push_back(word->second);
  }
  if (out.command.empty()) {
    return Error{"the process engine needs an option command.0=PROGRAM"};
  }
  return out;
}

std::vector<std::string> program_environment(const char* const* environment) {
  std::vector<std::string> out;
  for (; *environment != nullptr; ++environment) {
    std::string_view entry(*environment);
    if (entry.starts_with(kEnvironmentPrefix)) {
      out.emplace_back(entry.substr(std::string_view(kEnvironmentPrefix).size()));
    }
  }
  return out;
}

}  // namespace penstock::process
