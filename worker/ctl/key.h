// A limit's key as an operator names it: the text that nginx.conf's key= came to for the request,
// such as a whole Authorization header. It is a credential more often than not: it goes into a
// header, never into a URL, a message or a file.
#pragma once

#include <istream>
#include <string>

#include "shared/base/result.h"

namespace penstock::ctl {

constexpr size_t kMaxKeyBytes = 4096;

// The key itself, or, for "-", the first line of `input`. An Error says why it cannot be sent as a
// header: empty, too long, a control character in it, or a space at either end.
Result<std::string> read_key(const std::string& word, std::istream& input);

}  // namespace penstock::ctl
