#include "worker/queue/config/notify_keys.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <utility>

#include "shared/base/secret_file.h"
#include "shared/http/json_number.h"
#include "worker/queue/config/names.h"
#include "worker/queue/config/webhook_target.h"
#include "worker/queue/text/json.h"

namespace penstock::queue {
namespace {

using As = NoticeTemplate::As;

constexpr size_t kMaxHooks = 16;
constexpr size_t kMaxWords = 64;
constexpr size_t kMaxHeaders = 32;
constexpr size_t kMaxKeyBytes = 4096;
constexpr int kMaxDepth = 16;
constexpr size_t kMaxNodes = 1000;

template <size_t size>
std::string listed(const std::string_view (&names)[size]) {
  std::string list;
  for (const std::string_view each : names) {
    list.append(list.empty() ? "" : ", ").append(each);
  }
  return list;
}

void read_events(Section& section, HookConfig& hook) {
  const YAML::Node on = section.take("on");
  if (!on.IsDefined() || !on.IsSequence() || on.size() == 0) {
    return section.complain("on", std::string(on.IsDefined() ? "must be" : "is missing; write") +
                                      " a list of events, like [failed]: " + listed(kNoticeEvents));
  }
  for (const auto& item : on) {
    const std::string name = item.IsScalar() ? item.Scalar() : "";
    const auto* const found = std::find(std::begin(kNoticeEvents), std::end(kNoticeEvents), name);
    if (found == std::end(kNoticeEvents)) {
      return section.complain(
          "on", "has '" + name.substr(0, 100) + "', which is none of " + listed(kNoticeEvents));
    }
    hook.on |= 1U << (found - std::begin(kNoticeEvents));
  }
}

void read_command(Section& section, const std::string& file, HookConfig& hook) {
  const YAML::Node words = section.take("command");
  if (!words.IsDefined()) {
    return;
  }
  if (!words.IsSequence() || words.size() == 0 || words.size() > kMaxWords) {
    return section.complain("command", fmt::format("must be a list of 1 to {} words, like "
                                                   "[/usr/local/bin/tell]; no shell reads it",
                                                   kMaxWords));
  }
  for (const auto& word : words) {
    if (!word.IsScalar() || word.Scalar().find('\0') != std::string::npos ||
        (hook.command.empty() && word.Scalar().empty())) {
      hook.command.clear();
      return section.complain("command", "must be a list of words, each a text");
    }
    hook.command.push_back(word.Scalar());
  }
  std::string all;
  for (const std::string& word : hook.command) {
    all += word + '\0';
  }
  section.note_hidden("command", hook.command.front(), all);  // others may be secrets
  std::string& program = hook.command.front();
  program = relative_to(file, program);
  std::error_code error;
  if (!std::filesystem::is_regular_file(program, error) || ::access(program.c_str(), X_OK) != 0) {
    section.complain("command", "there is no program " + program +
                                    " that may be executed; write its whole path");
  }
}

// Text with {{field}} in it.
class TemplateReader {
 public:
  TemplateReader(Section& section, std::string key, NoticeTemplate& to)
      : section_(section), key_(std::move(key)), to_(to) {}

  void form(const YAML::Node& map) {
    bool first = true;
    Section pairs(map, section_.path_of(key_), section_.complaints());
    pairs.each([&](const std::string& name, const YAML::Node& value, int) {
      to_.text(first ? "" : "&");
      to_.text(name, As::kForm);
      to_.text("=");
      value.IsScalar() ? text(value.Scalar(), As::kForm)
                       : complain("must be a map of names and texts");
      first = false;
    });
  }

  void json(const YAML::Node& node, int depth = 0) {
    if (depth > kMaxDepth || ++nodes_ > kMaxNodes) {
      return complain("is too large, or too deep");
    }
    if (node.IsMap()) {
      list(node, "{", "}", [&](const auto& each) {
        to_.text(json_string(each.first.IsScalar() ? each.first.Scalar() : "") + ":");
        json(each.second, depth + 1);
      });
    } else if (node.IsSequence()) {
      list(node, "[", "]", [&](const auto& each) { json(each, depth + 1); });
    } else if (node.IsNull()) {
      to_.text("null");
    } else {
      scalar(node);
    }
  }

 private:
  void complain(const std::string& what) {
    if (!std::exchange(complained_, true)) {
      section_.complain(key_, what);
    }
  }

  template <typename Each>
  void list(const YAML::Node& node, std::string_view opens, std::string_view closes,
            const Each& member) {
    to_.text(opens);
    bool first = true;
    for (const auto& each : node) {
      to_.text(first ? "" : ",");
      member(each);
      first = false;
    }
    to_.text(closes);
  }

  // A number, true or false stays one; so does what is one field and nothing else.
  void scalar(const YAML::Node& node) {
    const std::string& value = node.Scalar();
    const bool plain = node.Tag() == "?";
    if (plain && (value == "true" || value == "false" || is_number(value))) {
      return to_.text(value);
    }
    if (value.starts_with("{{") && value.find("}}") == value.size() - 2) {
      return text(value, As::kJsonValue);
    }
    to_.text("\"");
    text(value, As::kJsonText);
    to_.text("\"");
  }

  void text(std::string_view text, As as) {
    for (size_t at = 0; at < text.size();) {
      const size_t opens = std::min(text.find("{{", at), text.size());
      to_.text(text.substr(at, opens - at), as);
      if (opens == text.size()) {
        return;
      }
      const size_t closes = text.find("}}", opens);
      std::string name(text.substr(opens + 2, closes == text.npos ? 0 : closes - opens - 2));
      name.erase(std::remove(name.begin(), name.end(), ' '), name.end());
      const auto* const found = std::find(std::begin(kNoticeFields), std::end(kNoticeFields), name);
      if (found == std::end(kNoticeFields)) {
        return complain("has {{" + name.substr(0, 60) + "}}, which is none of " +
                        listed(kNoticeFields));
      }
      to_.field(static_cast<size_t>(found - std::begin(kNoticeFields)), as);
      at = closes + 2;
    }
  }

  static bool is_number(std::string_view text) {
    const size_t sign = text.starts_with('-') ? 1 : 0;
    const size_t whole = http::after_digits(text, sign);
    const bool good = whole > sign && (text[sign] != '0' || whole == sign + 1);
    return good && (whole == text.size() || (text[whole] == '.' && whole + 1 < text.size() &&
                                             http::after_digits(text, whole + 1) == text.size()));
  }

  Section& section_;
  std::string key_;
  NoticeTemplate& to_;
  size_t nodes_ = 0;
  bool complained_ = false;
};

bool is_header(std::string_view name, std::string_view value) {
  const auto token = [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' ||
           c == '_';
  };
  return !name.empty() && std::all_of(name.begin(), name.end(), token) &&
         std::all_of(value.begin(), value.end(), [](char c) { return c >= ' ' && c < 127; });
}

void read_headers(Section& section, const std::string& file, NamedFiles files, HookConfig& hook) {
  if (const YAML::Node map = section.take("headers"); map.IsDefined()) {
    Section headers(map, section.path_of("headers"), section.complaints());
    headers.each([&](const std::string& name, const YAML::Node& value, int line) {
      if (!value.IsScalar() || !is_header(name, value.Scalar()) ||
          hook.headers.size() == kMaxHeaders) {
        return section.complaints().add(line, section.path_of("headers"),
                                        "must be a map of at most 32 headers, each a name and one "
                                        "line of printable text");
      }
      hook.headers.push_back(name + ": " + value.Scalar());
    });
    section.note_hidden("headers", fmt::format("{} of them, not shown", hook.headers.size()),
                        fmt::format("{}", fmt::join(hook.headers, "\n")));
  }
  std::string path;
  section.text("key_file", path);
  hook.key_file = path.empty() ? "" : relative_to(file, path);
  if (path.empty() || files == NamedFiles::kNamed) {
    return;
  }
  auto secret = read_secret_file(hook.key_file, kMaxKeyBytes);
  std::string key = secret ? secret->text : "";
  key.erase(key.find_last_not_of(" \t\r\n") + 1);
  if (!secret) {
    section.complain("key_file", secret.error().message);
  } else if (secret->is_too_open()) {
    section.complain("key_file", "may be read by all; chmod 0640 it, or less");
  } else if (key.empty() || key.size() > kMaxKeyBytes || !is_header("a", key)) {
    section.complain("key_file", "must hold one line of printable text");
  } else {
    hook.headers.push_back("authorization: Bearer " + key);
    section.note_hidden("key_file", path, key);
  }
}

// To be shown: of many services the rest of it is the key.
std::string without_path(const std::string& url) {
  return url.substr(0, url.find("://")) + "://" + host_of(url) + "/...";
}

void read_url(Section& section, const std::string& file, NamedFiles files, HookConfig& hook) {
  section.text("url", hook.url);
  section.note_hidden("url", without_path(hook.url), hook.url);
  if (!hook.url.empty() && (host_of(hook.url).empty() || !hook.url.starts_with("http"))) {
    section.complain("url", "must be http://HOST/PATH or https://HOST/PATH");
  }
  read_headers(section, file, files, hook);
  const YAML::Node json = section.take("json");
  const YAML::Node form = section.take("form");
  if (json.IsDefined() && form.IsDefined()) {
    section.complain("form", "stands beside json; a body is one of them");
  } else if (json.IsDefined()) {
    TemplateReader(section, "json", hook.body).json(json);
  } else if (form.IsDefined()) {
    TemplateReader(section, "form", hook.body).form(form);
    hook.headers.emplace_back("content-type: application/x-www-form-urlencoded");
  }
  if (!form.IsDefined()) {
    hook.headers.emplace_back("content-type: application/json");
  }
}

HookConfig read_hook(const YAML::Node& node, const std::string& path, const std::string& file,
                     NamedFiles files, Complaints& complaints) {
  Section section(node, path, complaints);
  HookConfig hook;
  read_events(section, hook);
  read_command(section, file, hook);
  if (section.has("command")) {
    for (const char* const key : {"url", "headers", "key_file", "json", "form"}) {
      if (section.take(key).IsDefined()) {
        section.complain(key, "stands beside command; a hook is a program or an url");
      }
    }
  } else if (!section.has("url")) {
    section.complain("url",
                     "is missing; a hook needs command: [PROGRAM] or url: https://HOST/PATH");
  } else {
    read_url(section, file, files, hook);
  }
  section.duration("timeout", hook.timeout_ns, 100 * kNsPerMs);
  section.number("tries", hook.tries, 1, 10);
  section.number("at_once", hook.at_once, 1,
                 hook.url.empty() ? HookConfig::kMostPrograms : HookConfig::kMostPosts);
  hook.name = !hook.command.empty()
                  ? std::filesystem::path(hook.command.front()).filename().string()
                  : host_of(hook.url);
  section.text("name", hook.name);
  if (section.has("name") && !good_name(hook.name)) {
    section.complain("name", name_rule());
  }
  section.done();
  return hook;
}

}  // namespace

std::vector<HookConfig> read_notify(const YAML::Node& node, const std::string& file,
                                    NamedFiles files, Complaints& complaints) {
  std::vector<HookConfig> hooks;
  if (!node.IsDefined()) {
    return hooks;
  }
  if (!node.IsSequence() || node.size() > kMaxHooks) {
    complaints.add(line_of(node), "notify",
                   fmt::format("must be a list of at most {} hooks, like "
                               "[{{on: [failed], command: [/usr/local/bin/tell]}}]",
                               kMaxHooks));
    return hooks;
  }
  for (size_t i = 0; i < node.size(); ++i) {
    const std::string path = fmt::format("notify[{}]", i);
    HookConfig hook = read_hook(node[i], path, file, files, complaints);
    const bool known = std::any_of(hooks.begin(), hooks.end(),
                                   [&](const HookConfig& each) { return each.name == hook.name; });
    if (known) {
      complaints.add(line_of(node[i]), path + ".name",
                     "is '" + hook.name + "', as of another; give this one a name of its own");
    }
    hooks.push_back(std::move(hook));
  }
  return hooks;
}

}  // namespace penstock::queue
