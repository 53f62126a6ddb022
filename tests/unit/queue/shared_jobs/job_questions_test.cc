#include "worker/queue/shared_jobs/job_questions.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/fixtures/redis_server.h"
#include "tests/unit/queue/shared_order/channel.h"
#include "tests/unit/queue/shared_order/order_client.h"

namespace penstock::queue {
namespace {

class JobQuestionsTest : public testing::Test {
 protected:
  JobQuestionsTest() { EXPECT_TRUE(client_.until_ready()); }

  void ask() {
    questions_.ask("asker", "runner", "x news",
                   [this](std::string_view answer) { told_.emplace_back(answer); });
  }
  std::string heard(Channel& channel) {
    client_.until([turns = 0]() mutable { return ++turns > 2; });  // it goes out
    return channel.next();
  }

  RedisServer server_;
  OrderClient client_{server_.socket()};
  JobQuestions questions_{client_.servers(), "test:q1:{q}:", [](std::string_view asked) {
                            return "of " + std::string(asked);
                          }};
  std::vector<std::string> told_;
};

TEST_F(JobQuestionsTest, WhoRunsAJobIsAskedAndItsAnswerIsTold) {
  Channel runner(server_.socket(), "test:q1:{q}:c|runner");
  Channel asker(server_.socket(), "test:q1:{q}:c|asker");
  ask();
  const std::string question = heard(runner);
  EXPECT_EQ(question, "ask 1 asker x news");
  EXPECT_TRUE(questions_.on_message(question));
  const std::string answer = heard(asker);
  EXPECT_EQ(answer, "told 1 of x news");
  EXPECT_TRUE(questions_.on_message(answer));
  EXPECT_EQ(told_, std::vector<std::string>{"of x news"});
  EXPECT_TRUE(questions_.on_message(answer));
  EXPECT_EQ(told_.size(), 1U);
}

TEST_F(JobQuestionsTest, WhoHearsNothingInTimeIsToldNothing) {
  ask();
  questions_.advance_to(monotonic_ns());
  EXPECT_TRUE(told_.empty());
  EXPECT_LE(questions_.next_event(), monotonic_ns() + JobQuestions::kPatienceNs);
  questions_.advance_to(questions_.next_event());
  EXPECT_EQ(told_, std::vector<std::string>{""});
  EXPECT_TRUE(questions_.on_message("told 1 too late"));
  EXPECT_EQ(told_.size(), 1U);
}

TEST_F(JobQuestionsTest, QuestionsThatNobodyAnswersAreBounded) {
  for (size_t i = 0; i <= JobQuestions::kMost; ++i) {
    ask();
  }
  EXPECT_EQ(told_, std::vector<std::string>{""});
}

TEST_F(JobQuestionsTest, WhatIsNoQuestionIsForOthers) {
  for (const char* text : {"", "asks", "wake m", "over x", "stop x 1"}) {
    EXPECT_FALSE(questions_.on_message(text)) << text;
  }
  for (const char* text : {"ask", "told", "told x y"}) {
    EXPECT_TRUE(questions_.on_message(text)) << text;
  }
}

}  // namespace
}  // namespace penstock::queue
