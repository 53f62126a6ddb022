// Questions to a running penstockd over its socket, as a tool's.
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>

#include "shared/base/fd.h"
#include "shared/base/result.h"
#include "shared/wire/messages.h"
#include "worker/ctl/arguments.h"

namespace penstock::ctl {

// Where penstockd listens, by -s, -c, $PENSTOCK_SOCKET, or as it is installed. An Error says what
// is wrong with the arguments or the configuration.
Result<std::string> socket_of(const Arguments& arguments);

// The socket that a penstock.yaml names.

// "a=1&b=x%20y"; those without a value are left out.
std::string query_of(
    std::initializer_list<std::pair<std::string_view, std::string_view>> parameters);

// A connection. Each question waits at most a few seconds for whatever comes next.
class Penstockd {
 public:
  static constexpr size_t kMaxAnswerBytes = 16U << 20;

  static Result<Penstockd> connect(const std::string& socket);

  // Waits so long from now on.
  void wait_up_to(int seconds);
  // How everything is (STATUS): JSON.
  Result<std::string> status();
  // An ASK as worker/queue/api/operator_api.h tells: the answer's body. What is refused is an Error
  // with the reason; where no answer came to what is more than a question, it says that it may be
  // done all the same.
  Result<std::string> ask(std::string_view method, std::string_view path,
                          std::string_view query = {});
  // After an ask() that was an Error: whether penstockd refused it, and may be asked more.
  bool refused() const { return refused_; }

 private:
  Penstockd(std::string socket, Fd fd) : socket_(std::move(socket)), fd_(std::move(fd)) {}
  Status send(std::string_view bytes);
  // The next frame. Its payload holds until the next call. With `silent_` set, none came.
  Result<wire::Frame> receive();
  Result<std::string> hear_answer();
  Error no_answer() const;

  std::string socket_;
  Fd fd_;
  uint64_t last_id_ = 0;
  bool silent_ = false;
  bool refused_ = false;
  std::string buffer_;
  size_t consumed_ = 0;  // of `buffer_`
};

}  // namespace penstock::ctl
