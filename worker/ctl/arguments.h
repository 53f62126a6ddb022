// A command's arguments as they were typed: options in any order, and the words between them.
//
//     --name VALUE   --name=VALUE   --flag   -n VALUE   -nVALUE   --   -
//
// After "--" everything is a word; "-" alone is one, too. No option may come twice.
#pragma once

#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "shared/base/result.h"

namespace penstock::ctl {

struct Flag {
  std::string_view name;   // "json"
  char letter = 0;         // 's' for -s; 0: none
  std::string_view value;  // what it takes, for people: "SOCKET"; empty: nothing
  std::string_view help;
};

class Arguments {
 public:
  // `typed`: without the program's and the command's name. An Error says which argument is wrong.
  static Result<Arguments> parse(std::span<const char* const> typed, std::span<const Flag> flags);

  bool has(std::string_view flag) const { return options_.contains(flag); }
  // Its value, or `otherwise` when it was not given.
  std::string value(std::string_view flag, std::string_view otherwise = "") const;
  const std::vector<std::string>& words() const { return words_; }

 private:
  std::map<std::string, std::string, std::less<>> options_;  // by their long names
  std::vector<std::string> words_;
};

}  // namespace penstock::ctl
