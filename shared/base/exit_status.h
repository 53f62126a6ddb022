// What waitpid(2) said of a process, in words.
#pragma once

#include <string>

namespace penstock {

// "exited with status 1", "was killed by signal 9 (Killed)". A status over 128 is a shell's word
// for the signal that killed its child: then it says so as well.
std::string exit_words(int status);

}  // namespace penstock
