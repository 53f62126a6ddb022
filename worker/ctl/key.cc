#include "worker/ctl/key.h"

#include <algorithm>
#include <cstdint>

namespace penstock::ctl {
namespace {

std::string first_line(std::istream& input) {
  std::string line;
  for (char c = 0; line.size() <= kMaxKeyBytes + 1 && input.get(c) && c != '\n';) {
    line += c;
  }
  if (line.ends_with('\r')) {
    line.pop_back();
  }
  return line;
}

bool is_control(char c) { return static_cast<uint8_t>(c) < 0x20 || c == 0x7F; }

}  // namespace

Result<std::string> read_key(const std::string& word, std::istream& input) {
  std::string key = word == "-" ? first_line(input) : word;
  if (key.empty()) {
    return Error{word == "-" ? "the standard input holds no key on its first line"
                             : "the key is empty"};
  }
  if (key.size() > kMaxKeyBytes) {
    return Error{"the key is longer than " + std::to_string(kMaxKeyBytes) + " bytes"};
  }
  if (std::any_of(key.begin(), key.end(), is_control)) {
    return Error{"the key has a control character in it"};
  }
  if (key.front() == ' ' || key.back() == ' ') {
    return Error{"the key begins or ends with a space, which a header cannot carry"};
  }
  return key;
}

}  // namespace penstock::ctl
