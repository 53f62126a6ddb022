#include <arpa/inet.h>
#include <dlfcn.h>
#include <gtest/gtest.h>
#include <ifaddrs.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <map>
#include <mutex>
#include <thread>

#include "shared/base/fd.h"
#include "worker/queue/webhooks/webhooks.h"

namespace {

// Whether who asks the name server of "silent.test" must wait. Of a type without a destructor: a
// resolver's thread that was given up may look at it while the program ends.
std::atomic<bool> silent = false;

}  // namespace

// The resolver that libcurl calls, as this program's own symbols come first: names in .test are
// ours, all others the system's. "silent.test" is of a name server that says nothing, "mixed.test"
// has an address that is refused, and then this machine's; all in here.test are this machine's.
extern "C" __attribute__((visibility("default"))) int getaddrinfo(const char* name,
                                                                  const char* service,
                                                                  const addrinfo* hints,
                                                                  addrinfo** found) {
  static const auto system =
      reinterpret_cast<int (*)(const char*, const char*, const addrinfo*, addrinfo**)>(
          ::dlsym(RTLD_NEXT, "getaddrinfo"));
  if (name != nullptr && std::strcmp(name, "silent.test") == 0) {
    silent.wait(true);
    return EAI_AGAIN;
  }
  if (name != nullptr && std::strstr(name, ".here.test") != nullptr) {
    return system("127.0.0.1", service, hints, found);
  }
  if (name == nullptr || std::strcmp(name, "mixed.test") != 0) {
    return system(name, service, hints, found);
  }
  const int error = system("10.255.255.1", service, hints, found);
  return error != 0 ? error : system("127.0.0.1", service, hints, &(*found)->ai_next);
}

// The interfaces of this machine, as libc tells of them: two with public addresses.
extern "C" __attribute__((visibility("default"))) int getifaddrs(ifaddrs** first) {
  static sockaddr_in four = {.sin_family = AF_INET,
                             .sin_addr = {htonl(0x5DB8D823)}};  // 93.184.216.35
  static sockaddr_in6 six = {.sin6_family = AF_INET6};
  static ifaddrs down, with_six, with_four;
  ::inet_pton(AF_INET6, "2606:2800:220:1::2", &six.sin6_addr);
  with_six.ifa_addr = reinterpret_cast<sockaddr*>(&six);
  with_four.ifa_addr = reinterpret_cast<sockaddr*>(&four);
  with_six.ifa_next = &down;  // one without an address
  with_four.ifa_next = &with_six;
  *first = &with_four;
  return 0;
}
extern "C" __attribute__((visibility("default"))) void freeifaddrs(ifaddrs*) {}

namespace penstock::queue {
namespace {

constexpr char kSecret[] = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

TEST(WebhookSignatureTest, IsThatOfTheSpecificationsExample) {
  const auto secrets = WebhookSecrets::parse(kSecret, "f");
  ASSERT_TRUE(secrets) << secrets.error().message;
  EXPECT_EQ(webhook_signature(*secrets, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330,
                              R"({"test": 2432232314})"),
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
}

TEST(WebhookSignatureTest, EverySecretSigns) {
  const auto secrets = WebhookSecrets::parse(
      std::string(kSecret) + "\r\n\nwhsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n", "f");
  ASSERT_TRUE(secrets);
  const std::string header = webhook_signature(*secrets, "id", 1, "{}");
  EXPECT_EQ(std::count(header.begin(), header.end(), ' '), 1);
  EXPECT_EQ(header.find("v1,"), 0U);
  EXPECT_NE(header.find(" v1,"), std::string::npos);
}

TEST(WebhookSignatureTest, WhatIsNoSecretIsToldWithItsLine) {
  for (const char* text :
       {"whsec_AAAA", "secret", "whsec_", "whsec_!!!!AAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}) {
    const auto secrets = WebhookSecrets::parse(std::string("\n") + text, "hook.secret");
    ASSERT_FALSE(secrets) << text;
    EXPECT_NE(secrets.error().message.find("hook.secret:2: a secret is whsec_"), std::string::npos);
  }
  EXPECT_NE(WebhookSecrets::parse("\n\n", "f").error().message.find("has no secret"),
            std::string::npos);
  EXPECT_NE(WebhookSecrets::load("/nonexistent").error().message.find("cannot be read"),
            std::string::npos);
}

WebhookTargets targets(const std::vector<std::string>& allow = {}) {
  auto made = WebhookTargets::create(allow);
  EXPECT_TRUE(made);
  return *std::move(made);
}

bool allows(const WebhookTargets& from, const char* address, const char* host = "example.com") {
  sockaddr_in four{};
  sockaddr_in6 six{};
  if (::inet_pton(AF_INET, address, &four.sin_addr) == 1) {
    four.sin_family = AF_INET;
    return from.allows(host, reinterpret_cast<sockaddr&>(four));
  }
  EXPECT_EQ(::inet_pton(AF_INET6, address, &six.sin6_addr), 1) << address;
  six.sin6_family = AF_INET6;
  return from.allows(host, reinterpret_cast<sockaddr&>(six));
}

TEST(WebhookTargetTest, OnlyThePublicInternetIsThere) {
  const WebhookTargets all = targets();
  for (const char* address :
       {"93.184.216.34", "1.1.1.1", "100.128.0.1", "172.32.0.1", "2606:2800:220:1::1", "2a00::1"}) {
    EXPECT_TRUE(allows(all, address)) << address;
  }
  for (
      const char* address :
      {"127.0.0.1",       "127.255.255.255", "10.1.2.3",        "172.16.0.1",    "172.31.255.255",
       "192.168.1.1",     "169.254.169.254", "100.64.0.1",      "0.0.0.0",       "224.0.0.1",
       "255.255.255.255", "198.18.0.1",      "192.0.2.1",       "::1",           "::",
       "fe80::1",         "fc00::1",         "fd12::1",         "ff02::1",       "::ffff:127.0.0.1",
       "::ffff:10.0.0.1", "::127.0.0.1",     "64:ff9b::7f00:1", "2002:7f00:1::", "2001:db8::1",
       "2001::1",         "100::1"}) {
    EXPECT_FALSE(allows(all, address)) << address;
  }
  sockaddr_storage local{};
  local.ss_family = AF_UNIX;
  EXPECT_FALSE(all.allows("x", reinterpret_cast<sockaddr&>(local)));
}

TEST(WebhookTargetTest, ThisMachinesOwnAddressesAndThoseOfItsCloudAreNotThere) {
  for (const char* address : {"93.184.216.35", "::ffff:93.184.216.35", "2606:2800:220:1::2",
                              "168.63.129.16", "161.26.0.10", "166.9.20.1"}) {
    EXPECT_FALSE(allows(targets(), address)) << address;
    EXPECT_FALSE(targets().allows("example.com", address)) << "on a connection that was kept";
  }
  EXPECT_FALSE(targets().check("https://93.184.216.35/hook"));
  EXPECT_TRUE(allows(targets({"93.184.216.35"}), "93.184.216.35")) << "unless allowed";
}

TEST(WebhookTargetTest, WhatTheOperatorAllowsIsThereToo) {
  const WebhookTargets some = targets({"10.1.0.0/16", "fd00::/8", "127.0.0.1", "Hooks.internal"});
  EXPECT_TRUE(allows(some, "10.1.255.1"));
  EXPECT_FALSE(allows(some, "10.2.0.1"));
  EXPECT_TRUE(allows(some, "fd12::1"));
  EXPECT_TRUE(allows(some, "127.0.0.1"));
  EXPECT_FALSE(allows(some, "127.0.0.2"));
  EXPECT_TRUE(allows(some, "192.168.0.1", "hooks.internal"));
  EXPECT_FALSE(allows(some, "192.168.0.1", "hooks.internal.example.com"));
  for (const char* bad : {"", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/x", "fd00::/129", "a b", "*"}) {
    EXPECT_FALSE(WebhookTargets::create({bad})) << bad;
  }
}

TEST(WebhookTargetTest, AUrlIsJudgedWhenItIsAskedFor) {
  const WebhookTargets all = targets();
  for (const char* good : {"https://example.com/hook", "http://example.com:8080/a?b=c",
                           "https://93.184.216.34/", "https://[2606:2800:220:1::1]/"}) {
    EXPECT_TRUE(all.check(good)) << good;
  }
  for (const char* bad :
       {"", "example.com/hook", "/hook", "ftp://example.com/", "file:///etc/passwd",
        "https://user:secret@example.com/", "https://user@example.com/", "http://127.0.0.1/",
        "http://[::1]:80/", "http://169.254.169.254/latest/meta-data", "http://0x7f.1/",
        "http://2130706433/", "http://127.1/", "https://exa mple.com/", "https://example.com/\n",
        "gopher://example.com/", "javascript:alert(1)"}) {
    EXPECT_FALSE(all.check(bad)) << bad;
  }
  EXPECT_FALSE(all.check("https://example.com/" + std::string(2048, 'a')));
}

// Answers each connection with the next text, then as `then` says.
class Receiver {
 public:
  enum Then { kClose, kHang, kFlood, kKeep };

  explicit Receiver(std::vector<std::string> answers, Then then = kClose)
      : answers_(std::move(answers)), then_(then) {
    listener_ = Fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(::bind(listener_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    socklen_t size = sizeof address;
    ::getsockname(listener_.get(), reinterpret_cast<sockaddr*>(&address), &size);
    port_ = ntohs(address.sin_port);
    ::listen(listener_.get(), 16);
    thread_ = std::thread([this] { serve(); });
  }
  ~Receiver() {
    stopping_ = true;
    ::shutdown(listener_.get(), SHUT_RDWR);
    {
      const std::lock_guard lock(mutex_);
      ::shutdown(kept_, SHUT_RDWR);
    }
    thread_.join();
  }
  std::string url(const std::string& host = "127.0.0.1") const {
    return "http://" + host + ":" + std::to_string(port_) + "/hook";
  }
  int requests() const { return requests_; }
  int connections() const { return connections_; }
  std::string last() {
    const std::lock_guard lock(mutex_);
    return last_;
  }

 private:
  // Until "}}", as every body here ends; empty when the other side has closed.
  static std::string read_request(int peer) {
    std::string request;
    char piece[4096];
    ssize_t n = 0;
    while (request.find("}}") == std::string::npos &&
           (n = ::recv(peer, piece, sizeof piece, 0)) > 0) {
      request.append(piece, static_cast<size_t>(n));
    }
    return n > 0 ? request : std::string();
  }
  bool answer(int peer) {
    const std::string request = read_request(peer);
    if (request.empty()) {
      return false;
    }
    const std::string answer = answers_[std::min<size_t>(requests_, answers_.size() - 1)];
    {
      const std::lock_guard lock(mutex_);
      last_ = request;
    }
    ++requests_;
    ::send(peer, answer.data(), answer.size(), MSG_NOSIGNAL);
    return true;
  }
  void keep(int peer) {
    const std::lock_guard lock(mutex_);
    kept_ = peer;
  }
  void serve() {
    std::vector<Fd> hanging;
    while (!stopping_) {
      Fd peer(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
      if (!peer.valid()) {
        return;
      }
      ++connections_;
      keep(then_ == kKeep ? peer.get() : -1);
      while (answer(peer.get()) && then_ == kKeep) {
      }
      keep(-1);
      if (then_ == kHang) {
        hanging.push_back(std::move(peer));
      } else if (then_ == kFlood) {
        const std::string flood(65536, 'x');
        while (::send(peer.get(), flood.data(), flood.size(), MSG_NOSIGNAL) > 0 && !stopping_) {
        }
      }
    }
  }

  std::vector<std::string> answers_;
  Then then_;
  Fd listener_;
  int port_ = 0;
  std::atomic<int> requests_{0};
  std::atomic<int> connections_{0};
  std::atomic<bool> stopping_{false};
  std::mutex mutex_;
  std::string last_;
  int kept_ = -1;  // what is read from until it is closed
  std::thread thread_;
};

std::string status(int code, const std::string& more = {}) {
  return "HTTP/1.1 " + std::to_string(code) + " X\r\nContent-Length: 0\r\nConnection: close\r\n" +
         more + "\r\n";
}

class WebhooksTest : public testing::Test {
 protected:
  WebhooksTest() {
    char path[] = "/tmp/webhook.XXXXXX";
    secret_ = Fd(::mkstemp(path));
    path_ = path;
    EXPECT_GT(::write(secret_.get(), kSecret, sizeof kSecret - 1), 0);
    apply({"127.0.0.1"});
  }
  ~WebhooksTest() override { ::unlink(path_.c_str()); }

  void apply(const std::vector<std::string>& allow) {
    const Status applied = webhooks_.apply({.secret_file = path_, .allow = allow});
    ASSERT_TRUE(applied) << applied.error().message;
  }
  JobId add(const std::string& url, uint64_t owner = 1) {
    const JobId id = put(url, {.owner = owner, .due_ms = now_ms()});
    webhooks_.add({.id = id, .owner = owner});
    return id;
  }
  // On disk, and told to nobody.
  JobId put(const std::string& url, DueDelivery delivery) {
    delivery.id = ids_.make(now_ms());
    urls_[std::string(delivery.id.view())] = url;
    disk_[sequence_of(delivery.id)] = delivery;
    return delivery.id;
  }
  void end_try(const JobId& id, uint32_t tries, int64_t due_ms) {
    tried_.push_back({tries, due_ms == 0 ? 0 : (due_ms - now_ms()) / 1000});
    DueDelivery& delivery = disk_[sequence_of(id)];
    delivery.tries = tries;
    delivery.due_ms = due_ms;
    if (due_ms == 0) {
      disk_.erase(sequence_of(id));
    }
  }
  // As the store answers.
  DuePage page_of(const DueQuery& query) const {
    DuePage page{.all = disk_.size()};
    std::vector<std::pair<std::pair<int64_t, uint64_t>, DueDelivery>> rows;
    for (const auto& [sequence, each] : disk_) {
      const std::pair key(each.due_ms, sequence);
      if (each.due_ms > query.until_ms) {
        page.next_ms = page.next_ms == 0 ? each.due_ms : std::min(page.next_ms, each.due_ms);
      } else if (query.owner ? each.owner == *query.owner
                             : key > std::pair(query.after_ms, query.after_sequence)) {
        rows.emplace_back(key, each);
      }
    }
    std::sort(rows.begin(), rows.end(),
              [](const auto& a, const auto& b) { return a.first < b.first; });
    for (size_t i = 0; i < std::min<size_t>(rows.size(), query.limit); ++i) {
      page.due.push_back(rows[i].second);
    }
    return page;
  }
  int64_t now_ms() const { return 1'763'780'000'000 + stepped_ms_ + now_ns_ / kNsPerMs; }
  // Until as many tries have been made in all.
  void run_until(size_t tries) {
    while (tried_.size() < tries) {
      webhooks_.advance_to(now_ns_, now_ms());
      pollfd ready{webhooks_.event_fd(), POLLIN, 0};
      ASSERT_EQ(::poll(&ready, 1, 20'000), 1) << "nothing came of it";
      webhooks_.take_responses(now_ns_, now_ms());
    }
  }
  void pass(int64_t seconds) { now_ns_ += seconds * kNsPerSec; }

  struct Try {
    uint32_t tries;
    int64_t wait_s;  // 0: over
  };
  std::map<std::string, std::string> urls_;
  std::vector<Try> tried_;
  int64_t now_ns_ = kNsPerSec;
  int64_t stepped_ms_ = 0;  // the time of day, since the test began
  JobIdMaker ids_;
  Fd secret_;
  std::string path_;
  std::map<uint64_t, DueDelivery> disk_;
  std::vector<std::string> gone_;
  Webhooks::Calls calls_{
      .message =
          [this](const JobId& id, auto told) {
            const auto url = urls_.find(std::string(id.view()));
            told(url == urls_.end() ? std::nullopt
                                    : std::optional(Webhooks::Message{
                                          url->second, R"({"type":"job.completed","data":{}})"}));
          },
      .tried = [this](const JobId& id, uint32_t tries, int64_t due_ms,
                      Webhooks::Fate) { end_try(id, tries, due_ms); },
      .due = [this](const DueQuery& query, auto told) { told(page_of(query)); },
      .gone = [this](const std::string& url) { gone_.push_back(url); }};
  static constexpr Webhooks::Bounds kFew{.all = 10, .of_owner = 4, .page = 3};
  Webhooks webhooks_{calls_, 7};
};

TEST_F(WebhooksTest, ADeliveryIsOverOnceItWasTaken) {
  Receiver receiver({status(204)});
  const JobId id = add(receiver.url());
  run_until(1);
  EXPECT_EQ(tried_[0].wait_s, 0);
  EXPECT_EQ(webhooks_.pending(), 0U);
  EXPECT_EQ(webhooks_.outcomes().delivered, 1U);
  const std::string request = receiver.last();
  EXPECT_NE(request.find("POST /hook HTTP/1.1"), std::string::npos);
  EXPECT_NE(request.find("webhook-id: msg_" + std::string(id.view().substr(4))), std::string::npos);
  EXPECT_NE(request.find("webhook-timestamp: 1763780001"), std::string::npos) << request;
  EXPECT_NE(request.find("webhook-signature: v1,"), std::string::npos);
}

// Hosts that share a queue may have made ids in the same millisecond.
TEST_F(WebhooksTest, TwoJobsOfOneNumberAreBothTold) {
  Receiver receiver({status(204), status(204)});
  Ulid ulid = ulid_of(add(receiver.url()));
  ++ulid.low;
  const JobId other = id_of(ulid);
  urls_[std::string(other.view())] = receiver.url();
  webhooks_.add({.id = other, .owner = 1});
  run_until(2);
  EXPECT_EQ(webhooks_.outcomes().delivered, 2U);
}

TEST_F(WebhooksTest, ItIsRetriedOnItsScheduleAndThenGivenUp) {
  Receiver receiver({status(500)});
  add(receiver.url());
  for (size_t i = 0; i <= Webhooks::kSchedule.size(); ++i) {
    run_until(i + 1);
    EXPECT_EQ(tried_[i].tries, i + 1);
    if (i < Webhooks::kSchedule.size()) {
      EXPECT_NEAR(static_cast<double>(tried_[i].wait_s),
                  static_cast<double>(Webhooks::kSchedule[i]),
                  0.1 * static_cast<double>(Webhooks::kSchedule[i]) + 1);
      EXPECT_GT(webhooks_.next_event(), now_ns_);
      pass(tried_[i].wait_s + 1);
    }
  }
  EXPECT_EQ(tried_.back().wait_s, 0);
  EXPECT_EQ(webhooks_.outcomes().given_up, 1U);
  EXPECT_EQ(receiver.requests(), 10);
}

TEST_F(WebhooksTest, GoneEndsItAndWhatElseIsForThatUrl) {
  Receiver receiver({status(410)});
  add(receiver.url());
  run_until(1);
  EXPECT_EQ(tried_[0].wait_s, 0);
  add(receiver.url());
  webhooks_.advance_to(now_ns_, now_ms());
  ASSERT_EQ(tried_.size(), 2U);
  EXPECT_EQ(tried_[1].wait_s, 0);
  EXPECT_EQ(receiver.requests(), 1);
  EXPECT_EQ(gone_, std::vector{receiver.url()}) << "so that it can be kept";
}

TEST_F(WebhooksTest, AUrlThatWasGoneInAnEarlierLifeIsNotAsked) {
  Receiver receiver({status(200)});
  webhooks_.set_gone(receiver.url());
  add(receiver.url());
  webhooks_.advance_to(now_ns_, now_ms());
  ASSERT_EQ(tried_.size(), 1U);
  EXPECT_EQ(tried_[0].wait_s, 0);
  for (size_t i = 0; i < Webhooks::kMostGone; ++i) {  // it is forgotten in the end
    webhooks_.set_gone("https://example.com/" + std::to_string(i));
  }
  add(receiver.url());
  run_until(2);
  EXPECT_EQ(receiver.requests(), 1);
}

TEST_F(WebhooksTest, AReceiverMayAskForTimeButNotForever) {
  Receiver receiver({status(429, "Retry-After: 3600\r\n"), status(503, "Retry-After: 99999999\r\n"),
                     status(200)});
  add(receiver.url());
  run_until(1);
  EXPECT_EQ(tried_[0].wait_s, 3600);
  pass(3601);
  run_until(2);
  EXPECT_EQ(tried_[1].wait_s, Webhooks::kLongestRetryAfterSeconds);
}

TEST_F(WebhooksTest, ATryComesInItsTimeWhereverTheClockGoes) {
  Receiver receiver({status(500)});
  add(receiver.url());
  run_until(1);
  constexpr int64_t kYearMs = int64_t{365} * 86'400 * 1000;
  stepped_ms_ = kYearMs;
  webhooks_.advance_to(now_ns_, now_ms());
  EXPECT_GT(webhooks_.next_event(), now_ns_) << "too early";
  stepped_ms_ = -kYearMs;
  pass(6);
  run_until(2);
  EXPECT_EQ(receiver.requests(), 2);
}

TEST_F(WebhooksTest, OverARestartAClockThatWasSetBackHoldsUpNoTry) {
  Receiver receiver({status(200)});
  put(receiver.url(), {.owner = 1, .tries = 1, .due_ms = now_ms() + 5000});
  stepped_ms_ = -int64_t{365} * 86'400 * 1000;
  webhooks_.advance_to(now_ns_, now_ms());
  EXPECT_LE(webhooks_.next_event(), now_ns_ + Webhooks::kLongestWaitMs * kNsPerMs);
  run_until(1);
  EXPECT_EQ(receiver.requests(), 1);
}

TEST_F(WebhooksTest, RedirectsAreNotFollowed) {
  Receiver inside({status(200)});
  Receiver receiver({status(302, "Location: " + inside.url() + "\r\n")});
  add(receiver.url());
  run_until(1);
  EXPECT_NE(tried_[0].wait_s, 0);
  EXPECT_EQ(inside.requests(), 0);
}

TEST_F(WebhooksTest, AnAddressThatMayNotBeConnectedToIsGivenUpAlsoBehindAName) {
  apply({});
  Receiver receiver({status(200)});
  add(receiver.url());
  add(receiver.url("localhost"));
  run_until(2);
  EXPECT_EQ(tried_[0].wait_s, 0);
  EXPECT_EQ(tried_[1].wait_s, 0);
  EXPECT_EQ(webhooks_.outcomes().refused_target, 2U);
  EXPECT_EQ(receiver.requests(), 0);
}

TEST_F(WebhooksTest, ANameThatIsAllowedMayBeInside) {
  apply({"localhost"});
  Receiver receiver({status(200)});
  add(receiver.url("localhost"));
  run_until(1);
  EXPECT_EQ(receiver.requests(), 1);
  EXPECT_EQ(webhooks_.outcomes().delivered, 1U);
}

TEST_F(WebhooksTest, AnAnswerThatNeverEndsIsCutOff) {
  Receiver receiver({"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n"}, Receiver::kFlood);
  add(receiver.url());
  run_until(1);
  EXPECT_EQ(webhooks_.outcomes().delivered, 1U) << "its status was said";
}

TEST_F(WebhooksTest, HeadersWithoutEndAndAnswersThatBreakOffAreFailures) {
  std::string headers = "HTTP/1.1 200 OK\r\n";
  for (int i = 0; i < 10'000; ++i) {
    headers += "X-" + std::to_string(i) + ": " + std::string(100, 'x') + "\r\n";
  }
  Receiver huge({headers});
  Receiver broken({"HTTP/1.1 2"});
  add(huge.url());
  add(broken.url());
  run_until(2);
  EXPECT_NE(tried_[0].wait_s, 0);
  EXPECT_NE(tried_[1].wait_s, 0);
}

TEST_F(WebhooksTest, OneThatHangsHoldsUpNoOther) {
  Receiver slow({"HTTP/1.1 200 OK\r\n"}, Receiver::kHang);
  Receiver quick({status(200)});
  for (int i = 0; i < 6; ++i) {
    add(slow.url());
  }
  add(quick.url());
  run_until(1);
  EXPECT_EQ(webhooks_.outcomes().delivered, 1U);
  EXPECT_EQ(webhooks_.pending(), 6U);
}

TEST_F(WebhooksTest, AHostThatHangsTakesFourPlacesHoweverManyAreForIt) {
  Receiver slow({""}, Receiver::kHang);
  Receiver quick({status(200)});
  for (int i = 0; i < 100; ++i) {
    add(slow.url());
  }
  webhooks_.advance_to(now_ns_, now_ms());
  pass(1);
  add(quick.url("localhost"));
  run_until(1);
  EXPECT_EQ(webhooks_.outcomes().delivered, 1U);
  EXPECT_EQ(webhooks_.pending(), 100U) << "none of them has used up a try";
  EXPECT_LE(slow.connections(), WebhookSender::kMostPerHost);
}

TEST_F(WebhooksTest, AnotherPortOfAHostThatHangsIsNotHeldUp) {
  Receiver slow({""}, Receiver::kHang);
  Receiver quick({status(200)});
  for (int i = 0; i < 8; ++i) {
    add(slow.url());
  }
  webhooks_.advance_to(now_ns_, now_ms());
  add(quick.url());
  run_until(1);
  EXPECT_EQ(webhooks_.outcomes().delivered, 1U);
}

TEST_F(WebhooksTest, AnOwnerOfManyHostsThatHangHoldsUpNoOther) {
  Receiver slow({""}, Receiver::kHang);
  Receiver quick({status(200)});
  for (int i = 0; i < 200; ++i) {  // as a name with a wildcard makes them
    add(slow.url(std::to_string(i) + ".here.test"), 1);
  }
  webhooks_.advance_to(now_ns_, now_ms());
  add(quick.url(), 2);
  run_until(1);
  EXPECT_EQ(webhooks_.outcomes().delivered, 1U);
  EXPECT_LE(slow.connections(), static_cast<int>(Webhooks::kMostPerOwner));
}

TEST_F(WebhooksTest, WhatHasNoRoomInMemoryStaysOnDiskUntilThereIs) {
  Webhooks few(calls_, 7, kFew);
  ASSERT_TRUE(few.apply({.secret_file = path_, .allow = {"127.0.0.1"}}));
  Receiver receiver({status(200)});
  for (int i = 0; i < 90; ++i) {  // some of an earlier life, some that come now
    const auto owner = static_cast<uint64_t>(i % 6 == 0 ? i % 5 : 7);
    const JobId id = put(receiver.url(), {.owner = owner, .due_ms = now_ms()});
    if (i >= 50) {
      few.add({.id = id, .owner = owner});
    }
  }
  while (few.outcomes().delivered < 90) {
    few.advance_to(now_ns_, now_ms());
    ASSERT_LE(few.in_memory(), kFew.all);
    if (few.next_event() > now_ns_) {
      pollfd ready{few.event_fd(), POLLIN, 0};
      ASSERT_EQ(::poll(&ready, 1, 20'000), 1) << few.outcomes().delivered << " came";
    }
    few.take_responses(now_ns_, now_ms());
  }
  EXPECT_EQ(receiver.requests(), 90) << "each once";
  EXPECT_EQ(few.in_memory(), 0U);
  EXPECT_EQ(few.pending(), 0U);
}

TEST_F(WebhooksTest, AnOwnerWhoseDeliveriesWaitOnDiskKeepsNoOtherOutOfMemory) {
  Webhooks few(calls_, 7, kFew);
  ASSERT_TRUE(few.apply({.secret_file = path_, .allow = {"127.0.0.1"}}));
  Receiver slow({""}, Receiver::kHang);
  Receiver quick({status(200)});
  for (int i = 0; i < 500; ++i) {
    put(slow.url(), {.owner = 1, .due_ms = now_ms()});
  }
  put(quick.url(), {.owner = 2, .due_ms = now_ms()});
  do {
    few.advance_to(now_ns_, now_ms());
  } while (few.next_event() <= now_ns_);
  pollfd ready{few.event_fd(), POLLIN, 0};
  ASSERT_EQ(::poll(&ready, 1, 20'000), 1);
  few.take_responses(now_ns_, now_ms());
  EXPECT_EQ(few.outcomes().delivered, 1U);
  EXPECT_EQ(few.pending(), 500U);
}

// The store reads a page, and tells of it later: meanwhile some of it is over.
TEST_F(WebhooksTest, WhatIsOverBeforeItsPageIsToldIsNotSentAgain) {
  Receiver receiver({status(200)});
  std::function<void()> tell;
  calls_.due = [&](const DueQuery& query, auto told) {
    tell = [page = page_of(query), told] { told(page); };
  };
  Webhooks late(calls_, 7);
  ASSERT_TRUE(late.apply({.secret_file = path_, .allow = {"127.0.0.1"}}));
  const JobId id = put(receiver.url(), {.owner = 1, .due_ms = now_ms()});
  late.advance_to(now_ns_, now_ms());
  late.add({.id = id, .owner = 1});
  late.advance_to(now_ns_, now_ms());
  pollfd ready{late.event_fd(), POLLIN, 0};
  ASSERT_EQ(::poll(&ready, 1, 20'000), 1);
  late.take_responses(now_ns_, now_ms());
  tell();
  late.advance_to(now_ns_, now_ms());
  EXPECT_EQ(late.in_memory(), 0U);
  EXPECT_EQ(receiver.requests(), 1);
}

TEST_F(WebhooksTest, WhatIsGivenUpWritesABoundedNumberOfLines) {
  apply({});
  testing::internal::CaptureStderr();
  for (int i = 0; i < 50; ++i) {
    add("http://127.0.0.1:9/" + std::to_string(i));
  }
  run_until(50);
  const std::string said = testing::internal::GetCapturedStderr();
  EXPECT_EQ(webhooks_.outcomes().given_up, 50U);
  EXPECT_EQ(std::count(said.begin(), said.end(), '\n'), BoundedLog::kPerSecond);
}

TEST_F(WebhooksTest, WhatWaitsForItsHostIsSentInTurn) {
  Receiver receiver({status(200)});
  for (int i = 0; i < 100; ++i) {
    add(receiver.url());
  }
  run_until(100);
  EXPECT_EQ(webhooks_.outcomes().delivered, 100U);
  EXPECT_EQ(receiver.requests(), 100);
}

TEST_F(WebhooksTest, JobsThatGoWhileTheyWaitForTheirHostHoldUpNoOther) {
  Receiver receiver({status(200)});
  for (int i = 0; i < 40; ++i) {
    add(receiver.url());
  }
  webhooks_.advance_to(now_ns_, now_ms());
  urls_.clear();
  add(receiver.url());
  run_until(41);
  EXPECT_EQ(webhooks_.pending(), 0U);
  EXPECT_EQ(webhooks_.outcomes().delivered, 5U) << "four were under way";
}

TEST_F(WebhooksTest, AJobThatEndsAnewIsToldOfAnewThoughTheFirstIsUnderWay) {
  Receiver receiver({status(200)});
  const JobId id = add(receiver.url());
  webhooks_.advance_to(now_ns_, now_ms());
  webhooks_.add({.id = id, .owner = 1});
  run_until(1);
  EXPECT_EQ(tried_[0].tries, 1U) << "of the new one";
  EXPECT_EQ(receiver.requests(), 2);
  EXPECT_EQ(webhooks_.pending(), 0U);
}

TEST_F(WebhooksTest, WhatIsAskedForWhenSecretsGoIsNotSentUnsigned) {
  Receiver receiver({status(200)});
  std::function<void()> answer;
  calls_.message = [&](const JobId&, auto told) {
    answer = [&receiver, told] { told(Webhooks::Message{receiver.url(), "{{}}"}); };
  };
  Webhooks webhooks(calls_);
  ASSERT_TRUE(webhooks.apply({.secret_file = path_, .allow = {"127.0.0.1"}}));
  webhooks.add({.id = put(receiver.url(), {})});
  webhooks.advance_to(now_ns_, now_ms());
  ASSERT_TRUE(webhooks.apply({}));
  answer();
  EXPECT_EQ(webhooks.next_event(), INT64_MAX);
  EXPECT_EQ(webhooks.in_memory(), 1U);
  ASSERT_TRUE(webhooks.apply({.secret_file = path_, .allow = {"127.0.0.1"}}));
  EXPECT_EQ(webhooks.next_event(), now_ns_) << "it is sent once there are secrets again";
}

TEST_F(WebhooksTest, AnAddressThatIsRefusedIsPassedOverWhenTheNameHasAnother) {
  Receiver receiver({status(500), status(200)});
  add(receiver.url("mixed.test"));
  run_until(1);
  EXPECT_NE(tried_[0].wait_s, 0) << "the receiver was reached, and has failed";
  EXPECT_EQ(webhooks_.outcomes().refused_target, 0U);
  pass(tried_[0].wait_s + 1);
  run_until(2);
  EXPECT_EQ(webhooks_.outcomes().delivered, 1U);
}

TEST_F(WebhooksTest, AConnectionThatIsKeptIsJudgedAnewAfterAReload) {
  Receiver receiver({"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"}, Receiver::kKeep);
  add(receiver.url());
  run_until(1);
  add(receiver.url());
  run_until(2);
  ASSERT_EQ(receiver.connections(), 1) << "it is kept";
  apply({});
  add(receiver.url());
  run_until(3);
  EXPECT_EQ(receiver.requests(), 2);
  EXPECT_EQ(webhooks_.outcomes().refused_target, 1U);
}

TEST_F(WebhooksTest, HeadersAreReadUpToABound) {
  const std::string line = "X-Y: " + std::string(1017, 'x') + "\r\n";  // a kilobyte
  std::string some, many;
  for (size_t i = 0; i < 100; ++i) {
    some += i < 60 ? line : "";
    many += line;
  }
  Receiver within({status(200, some)});
  Receiver beyond({status(200, many)});
  add(within.url());
  run_until(1);
  EXPECT_EQ(webhooks_.outcomes().delivered, 1U);
  add(beyond.url());
  run_until(2);
  EXPECT_NE(tried_[1].wait_s, 0);
  EXPECT_EQ(webhooks_.outcomes().delivered, 1U);
}

WebhookResponse sent(WebhookSender& sender, const std::string& url) {
  sender.send({.url = url,
               .headers = {},
               .body = "{{}}",
               .targets = std::make_shared<const WebhookTargets>(targets({"127.0.0.1"}))});
  pollfd ready{sender.event_fd(), POLLIN, 0};
  if (::poll(&ready, 1, 20'000) != 1) {
    return {.url = url, .error = "nothing came of it"};
  }
  return sender.take().at(0);
}

TEST(WebhookSenderTest, WhoNeverAnswersIsGivenUp) {
  Receiver receiver({""}, Receiver::kHang);
  WebhookSender sender({.connect_ms = 100, .total_ms = 200});
  const WebhookResponse response = sent(sender, receiver.url());
  EXPECT_EQ(response.status, 0);
  EXPECT_EQ(response.error, "Timeout was reached");
}

TEST(WebhookSenderTest, ANameServerThatSaysNothingHoldsUpNoOther) {
  silent = true;
  Receiver receiver({status(200)});
  WebhookSender sender({.connect_ms = 100, .total_ms = 200});
  EXPECT_EQ(sent(sender, "http://silent.test/").error, "Timeout was reached");
  EXPECT_EQ(sent(sender, receiver.url()).status, 200);
  silent = false;
  silent.notify_all();
}

TEST(WebhookSignatureTest, ASecretThatOthersMayReadIsWarnedOf) {
  char path[] = "/tmp/webhook.XXXXXX";
  const Fd file(::mkstemp(path));
  ASSERT_GT(::write(file.get(), kSecret, sizeof kSecret - 1), 0);
  for (const mode_t mode : {0600, 0640, 0440, 0400, 0644, 0660, 0604, 0641}) {
    ASSERT_EQ(::fchmod(file.get(), mode), 0);
    testing::internal::CaptureStderr();
    EXPECT_TRUE(WebhookSecrets::load(path));
    const std::string said = testing::internal::GetCapturedStderr();
    const bool loose = mode == 0644 || mode == 0660 || mode == 0604 || mode == 0641;
    EXPECT_EQ(said.find("chmod 0640") != std::string::npos, loose) << mode << said;
  }
  ::unlink(path);
}

TEST_F(WebhooksTest, WithoutASecretNothingIsSent) {
  ASSERT_TRUE(webhooks_.apply({}));
  EXPECT_FALSE(webhooks_.check("https://example.com/"));
  Receiver receiver({status(200)});
  add(receiver.url());
  EXPECT_EQ(webhooks_.next_event(), INT64_MAX);
}

}  // namespace
}  // namespace penstock::queue
