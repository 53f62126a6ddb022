// `challenges` of penstock.yaml.
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "worker/queue/config/load_config.h"

namespace penstock::queue {
namespace {

class ProviderConfigTest : public testing::Test {
 protected:
  ProviderConfigTest() {
    std::filesystem::create_directories(folder_);
    write("secret", "0xsecret\n");
  }
  ~ProviderConfigTest() override { std::filesystem::remove_all(folder_); }

  void write(const std::string& name, const std::string& text, mode_t mode = 0600) {
    std::ofstream(folder_ + "/" + name) << text;
    ::chmod((folder_ + "/" + name).c_str(), mode);
  }
  Result<Config> parse(const std::string& keys, const std::string& name = "turnstile") {
    return parse_config("socket: s.sock\nchallenges:\n  " + name + ": { " + keys + " }\n",
                        folder_ + "/penstock.yaml");
  }
  void expect_complaint(const std::string& keys, const std::string& what,
                        const std::string& name = "turnstile") {
    const auto config = parse(keys, name);
    ASSERT_FALSE(config) << keys;
    EXPECT_NE(config.error().message.find(what), std::string::npos) << config.error().message;
    EXPECT_EQ(config.error().message.find("0xsecret"), std::string::npos);
  }

  const std::string folder_ = testing::TempDir() + "/providers-" + std::to_string(::getpid());
  const std::string good_ = "secret_file: secret, hostnames: [Example.com]";
};

TEST_F(ProviderConfigTest, ReadsAProviderAndShowsItsSecretToNobody) {
  const auto config = parse(good_ + ", action: enter, timeout: 2s, remote_ip: true");
  ASSERT_TRUE(config) << config.error().message;
  ASSERT_EQ(config->challenges.size(), 1U);
  const ProviderConfig& provider = config->challenges[0];
  EXPECT_EQ(provider.name, "turnstile");
  EXPECT_EQ(provider.secret, "0xsecret");
  EXPECT_EQ(provider.hostnames, std::vector<std::string>{"example.com"});
  EXPECT_EQ(provider.action, "enter");
  EXPECT_EQ(provider.timeout_ns, 2 * kNsPerSec);
  EXPECT_TRUE(provider.sends_remote_ip);
  EXPECT_EQ(provider.url, "https://challenges.cloudflare.com/turnstile/v0/siteverify");
  const std::string shown = config->settings.text();
  EXPECT_EQ(shown.find("0xsecret"), std::string::npos);
  EXPECT_NE(shown.find("secret_file"), std::string::npos) << shown;
}

TEST_F(ProviderConfigTest, EachProviderHasItsUrl) {
  EXPECT_EQ(parse(good_, "hcaptcha")->challenges[0].url, "https://api.hcaptcha.com/siteverify");
  EXPECT_EQ(parse(good_ + ", score: 0.5", "recaptcha")->challenges[0].url,
            "https://www.google.com/recaptcha/api/siteverify");
}

TEST_F(ProviderConfigTest, SaysWhatIsWrongAndWhatWouldBeRight) {
  expect_complaint("hostnames: [a]", "secret_file': is missing; write the path of a file");
  expect_complaint("secret_file: none, hostnames: [a]", "cannot be read");
  expect_complaint("secret_file: secret", "hostnames': is missing; write a list of the hosts");
  expect_complaint("secret_file: secret, hostnames: []", "must be a list of the hosts");
  expect_complaint("secret_file: secret, hostnames: [\"*.example.com\"]", "must be a list");
  expect_complaint("secret_file: secret, hostnames: [https://example.com]", "must be a list");
  expect_complaint(good_ + ", score: 0.5", "unknown key");
  expect_complaint(good_ + ", score: 2", "score", "recaptcha");
  expect_complaint(good_ + ", action: a", "is not known to hcaptcha", "hcaptcha");
  expect_complaint(good_ + ", timeout: 30s", "must be at most 20s");
  expect_complaint(good_ + ", timeout: 1ms", "timeout");
  expect_complaint(good_ + ", max_age: 2h", "must be at most 1h");
  for (const char* const url :
       {"ftp://a/b", "http://example.com/siteverify", "http://127.0.0.1.example.com/",
        "http://127.0.0.1@example.com/", "https://"}) {
    expect_complaint(good_ + ", url: '" + url + "'", "must be https://HOST/PATH");
  }
  for (const char* const url : {"https://example.com/a", "http://127.0.0.1:80/a",
                                "http://localhost/a", "http://[::1]:80/a"}) {
    EXPECT_TRUE(parse(good_ + ", url: '" + url + "'")) << url;
  }
  expect_complaint(good_, "unknown key", "friendly");
  write("open", "0xsecret", 0644);
  expect_complaint("secret_file: open, hostnames: [a]", "may be read by all; chmod 0640");
  write("two", "0xsecret\nmore\n");
  expect_complaint("secret_file: two, hostnames: [a]", "one line of printable text");
  write("empty", "\n");
  expect_complaint("secret_file: empty, hostnames: [a]", "one line of printable text");
}

}  // namespace
}  // namespace penstock::queue
