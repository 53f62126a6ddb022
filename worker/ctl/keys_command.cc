// keys: issued, listed, moved and revoked, in the file that Nginx's penstock_keys names.
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <iostream>

#include "shared/base/clock.h"
#include "shared/base/units.h"
#include "worker/ctl/command.h"
#include "worker/ctl/json.h"
#include "worker/ctl/key.h"
#include "worker/ctl/keys_store.h"
#include "worker/ctl/order_log.h"
#include "worker/ctl/table.h"

namespace penstock::ctl {
namespace {

using keys::Key;

// A key that is brought along is kept as a plain digest: a short one could be guessed from it.
constexpr size_t kLeastKeyBytes = 20;

std::string file_of(const Arguments& arguments) {
  const char* const environment = std::getenv("PENSTOCK_KEYS");
  const bool set = environment != nullptr && *environment != '\0';
  return arguments.value("file", set ? environment : "/etc/penstock/keys");
}

int64_t now_s() { return std::time(nullptr); }

std::string until_of(const Key& key) {
  return key.ends_s == 0 ? "-" : keys::format_time(key.ends_s);
}

// Those of an owner, or the one that has this id.
std::vector<Key*> find(KeysStore& store, std::string_view which) {
  std::vector<Key*> found;
  for (Key& key : store.all()) {
    if (keys::id_of(key.digest) == which) {
      return {&key};
    }
    if (key.owner == which) {
      found.push_back(&key);
    }
  }
  return found;
}

Error nobody(std::string_view which) {
  return {fmt::format("no key has the id or the owner '{}'; penstockctl keys list shows them",
                      printable(which))};
}

// --tier, --for and --name, as far as they are given.
Status change(Key& key, const Arguments& arguments) {
  if (arguments.has("tier")) {
    const std::string tier = arguments.value("tier");
    if (!keys::is_tier(tier)) {
      return Error{"a plan's name is 1 to 64 of a-z A-Z 0-9 - _ .; - alone is none"};
    }
    key.tier = tier == "-" ? "" : tier;
  }
  if (arguments.has("for")) {
    const auto ns = parse_duration_ns(arguments.value("for"));
    if (!ns || (*ns != 0 && *ns < kNsPerSec)) {
      return Error{"--for takes a time such as 90d, or 0: without an end"};
    }
    key.ends_s = *ns == 0 ? 0 : now_s() + *ns / kNsPerSec;
  }
  if (arguments.has("name")) {
    key.name = arguments.value("name");
    if (!keys::is_key_name(key.name)) {
      return Error{"a key's name is at most 128 bytes of text on one line"};
    }
  }
  return Ok{};
}

Result<std::string> new_or_given_key(const Arguments& arguments) {
  if (!arguments.has("key-file")) {
    return keys::make_key();
  }
  const std::string path = arguments.value("key-file");
  std::ifstream file(path);
  auto key = read_key("-", path == "-" ? std::cin : file);
  if (key && (key->size() < kLeastKeyBytes || key->size() > keys::kMostKeyBytes ||
              key->find(' ') != std::string::npos)) {
    return Error{fmt::format("a key is {} to {} characters without spaces", kLeastKeyBytes,
                             keys::kMostKeyBytes)};
  }
  return key;
}

std::string as_json(const Key& key) {
  return fmt::format(R"({{"id":{},"owner":{},"tier":{},"made":"{}","ends":{},"name":{})",
                     json_text(keys::id_of(key.digest)), json_text(key.owner),
                     key.tier.empty() ? "null" : json_text(key.tier), keys::format_time(key.made_s),
                     key.ends_s == 0 ? "null" : json_text(keys::format_time(key.ends_s)),
                     json_text(key.name));
}

Outcome add(const Arguments& arguments, const std::string& owner, std::string& ids) {
  if (!keys::is_owner(owner)) {
    return misused(fmt::format("'{}' is no owner: it is {}", printable(owner), keys::kOwnerRule));
  }
  const auto text = new_or_given_key(arguments);  // nobody types while the file is locked
  if (!text) {
    return failed(text.error());
  }
  auto store = KeysStore::open(file_of(arguments), KeysStore::Absent::kHasNoKeys);
  if (!store) {
    return failed(store.error());
  }
  Key key{.digest = challenge::sha256(*text), .owner = owner, .tier = "", .made_s = now_s()};
  if (const Status changed = change(key, arguments); !changed) {
    return misused(changed.error().message);
  }
  if (const Key* const there = keys::find_key(store->all(), key.digest); there != nullptr) {
    return failed(Error{"this key is " + there->owner + "'s already"});
  }
  ids = keys::id_of(key.digest);
  store->all().push_back(key);
  if (const Status saved = store->save(); !saved) {
    return failed(saved.error());
  }
  if (arguments.has("json")) {
    return {Outcome::kFine, as_json(key) + ",\"key\":" + json_text(*text) + "}\n"};
  }
  return {Outcome::kFine,
          fmt::format("{}\n\nKey {} of {}, {}, good {}. It is shown this once: nothing keeps it.\n",
                      *text, keys::id_of(key.digest), key.owner,
                      key.tier.empty() ? "no plan" : "plan " + key.tier,
                      key.ends_s == 0 ? "without an end" : "until " + until_of(key))};
}

Outcome list(const Arguments& arguments, std::string_view owner) {
  auto store = KeysStore::read(file_of(arguments));
  if (!store) {
    return failed(store.error());
  }
  std::vector<const Key*> shown;
  for (const Key& key : store->all()) {
    if (owner.empty() || key.owner == owner) {
      shown.push_back(&key);
    }
  }
  std::sort(shown.begin(), shown.end(), [](const Key* a, const Key* b) {
    return std::tie(a->owner, a->made_s, a->digest) < std::tie(b->owner, b->made_s, b->digest);
  });
  if (arguments.has("json")) {
    std::string out = R"({"object":"list","data":[)";
    for (const Key* const key : shown) {
      out += (out.ends_with('[') ? "" : ",") + as_json(*key) + "}";
    }
    return {Outcome::kFine, out + "]}\n"};
  }
  std::vector<Row> rows = {{"ID", "OWNER", "PLAN", "ISSUED", "GOOD UNTIL", "NAME"}};
  for (const Key* const key : shown) {
    rows.push_back({keys::id_of(key->digest), key->owner, key->tier.empty() ? "-" : key->tier,
                    keys::format_time(key->made_s),
                    until_of(*key) + (key->has_ended(now_s()) ? " (over)" : ""),
                    printable(key->name)});
  }
  return {Outcome::kFine, render(rows)};
}

// Changes what `which` names by `deed`, and says what was done.
template <typename Deed>
Outcome change_found(const Arguments& arguments, const std::string& which, std::string_view done,
                     std::string& ids, const Deed& deed) {
  auto store = KeysStore::open(file_of(arguments), KeysStore::Absent::kIsError);
  if (!store) {
    return failed(store.error());
  }
  const std::vector<Key*> found = find(*store, which);
  if (found.empty()) {
    return failed(nobody(which));
  }
  if (found.size() > 1 && !arguments.has("all")) {
    return misused(
        fmt::format("{} has {} keys: name one by its id, or say --all", which, found.size()));
  }
  const size_t count = found.size();
  for (const Key* const key : found) {
    ids += (ids.empty() ? "" : ",") + keys::id_of(key->digest);
  }
  if (const Status fine = deed(*store, found); !fine) {
    return misused(fine.error().message);
  }
  if (const Status saved = store->save(); !saved) {
    return failed(saved.error());
  }
  if (arguments.has("json")) {
    return {Outcome::kFine, fmt::format("{{\"{}\":{}}}\n", done, count)};
  }
  return {Outcome::kFine, fmt::format("{} {} key{}\n", done, count, count == 1 ? "" : "s")};
}

Outcome move(const Arguments& arguments, const std::string& which, std::string& ids) {
  if (!arguments.has("tier") && !arguments.has("owner") && !arguments.has("for") &&
      !arguments.has("name")) {
    return misused("keys move says where to: --tier, --owner, --for or --name");
  }
  return change_found(arguments, which, "changed", ids,
                      [&](KeysStore&, const std::vector<Key*>& found) -> Status {
                        for (Key* const key : found) {
                          key->owner = arguments.value("owner", key->owner);
                          if (!keys::is_owner(key->owner)) {
                            return Error{std::string("an owner is ") + keys::kOwnerRule};
                          }
                          if (Status changed = change(*key, arguments); !changed) {
                            return changed;
                          }
                        }
                        return Ok{};
                      });
}

Outcome revoke(const Arguments& arguments, const std::string& which, std::string& ids) {
  return change_found(arguments, which, "revoked", ids,
                      [](KeysStore& store, const std::vector<Key*>& found) -> Status {
                        std::vector<Key> left;
                        for (Key& key : store.all()) {
                          if (std::find(found.begin(), found.end(), &key) == found.end()) {
                            left.push_back(std::move(key));
                          }
                        }
                        store.all() = std::move(left);
                        return Ok{};
                      });
}

// Tells the system's log, unless the command line was wrong. What names no key may be one itself.
Outcome tell(const Arguments& arguments, const std::string& which, std::string_view deed,
             const std::string& ids, Outcome outcome) {
  if (outcome.exit_status != Outcome::kMisused) {
    log_order(outcome.exit_status == Outcome::kFine,
              {{"deed", deed},
               {"object", ids.empty() ? "/keys" : "/keys/" + which},
               {"keys", ids},
               {"owner", arguments.value("owner")},
               {"tier", arguments.value("tier")},
               {"for", arguments.value("for")},
               {"file", file_of(arguments)}});
  }
  return outcome;
}

}  // namespace

Outcome run_keys(const Arguments& arguments) {
  const auto& words = arguments.words();
  const std::string action = words.empty() ? "list" : words[0];
  const std::string which = words.size() == 2 ? words[1] : "";
  const bool fits = words.size() <= 2 && (action == "list" || !which.empty());
  std::string ids;
  if (fits && action == "add") {
    return tell(arguments, which, action, ids, add(arguments, which, ids));
  }
  if (fits && action == "list") {
    return list(arguments, which);
  }
  if (fits && action == "move") {
    return tell(arguments, which, action, ids, move(arguments, which, ids));
  }
  if (fits && action == "revoke") {
    return tell(arguments, which, action, ids, revoke(arguments, which, ids));
  }
  return misused("keys takes add OWNER, list [OWNER], move ID|OWNER or revoke ID|OWNER");
}

}  // namespace penstock::ctl
