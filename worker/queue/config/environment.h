// Variables of penstockd's environment in values of penstock.yaml: paths, and what is secret.
//
//     model: ${MODELS}/chat              unset, or empty: an error
//     state: ${STATE:-/var/lib/penstock} then what follows ":-"
//     $${x}                              is ${x} itself
#pragma once

#include <string>
#include <string_view>

#include "shared/base/result.h"

namespace penstock::queue {

// `text` with its variables put in. What is put in is not looked at again. The Error says which is
// not there, or is not written as it should be.
Result<std::string> with_environment(std::string_view text);

}  // namespace penstock::queue
