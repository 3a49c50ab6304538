#include "store/modelfile.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "base/error.h"

namespace steelyard {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(Modelfile, IsRead) {
  const Modelfile m = parse_modelfile(
      "# a comment\r\n"
      "FROM llama3.2:1b\n"
      "parameter temperature 0.5\n"
      "PARAMETER num_ctx 4096\n"
      "PARAMETER stop \"a\\nb\"\n"
      "PARAMETER stop <end>\n"
      "PARAMETER penalize_newline false\n"
      "\n"
      "SYSTEM \"\"\"\n You are brief.\n# no comment\n\"\"\"\n"
      "TEMPLATE {{ .Prompt }}\n"
      "MESSAGE user What is up?\n"
      "MESSAGE assistant \"\"\"The\nsky.\"\"\"\n"
      "LICENSE \"MIT\"\n"
      "LICENSE one more");
  EXPECT_EQ(m.from, "llama3.2:1b");
  EXPECT_EQ(m.parameters.dump(),
            R"({"temperature":0.5,"num_ctx":4096,"stop":["a\nb","<end>"],"penalize_newline":false})");
  EXPECT_EQ(m.system, "\n You are brief.\n# no comment\n");
  EXPECT_EQ(m.chat_template, "{{ .Prompt }}");
  EXPECT_EQ(m.messages.dump(),
            R"([{"role":"user","content":"What is up?"},{"role":"assistant","content":"The\nsky."}])");
  EXPECT_THAT(m.licenses, ElementsAre("MIT", "one more"));
}

TEST(Modelfile, SaysWhichLineIsWrong) {
  const auto failure = [](const std::string& text, ErrorKind kind) {
    try {
      parse_modelfile(text);
      ADD_FAILURE() << text;
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), kind) << text;
      return std::string(e.what());
    }
    return std::string();
  };
  for (const char* name : {"ADAPTER ./lora", "RENDERER x", "PARSER x", "DRAFT x", "REQUIRES 0.14"})
    EXPECT_THAT(failure("FROM a\nSYSTEM \"\"\"b\nc\"\"\"\n" + std::string(name), ErrorKind::unsupported),
                HasSubstr("line 4 of the Modelfile"))
        << name;
  EXPECT_THAT(failure("FROM a\nFLY away", ErrorKind::bad_input),
              HasSubstr("line 2 of the Modelfile: there is no"));
  EXPECT_THAT(failure("SYSTEM a", ErrorKind::bad_input), HasSubstr("no FROM"));
  for (const char* text : {"", "FROM", "FROM a\nFROM b", "FROM a\nPARAMETER", "FROM a\nPARAMETER top_k",
                           "FROM a\nMESSAGE tool x", "FROM a\nSYSTEM \"\"\"b", "FROM a\nSYSTEM \"\"\""})
    failure(text, ErrorKind::bad_input);
}

}  // namespace
}  // namespace steelyard
