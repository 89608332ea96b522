#pragma once
// A chat template turns a conversation into spans, each of one TokenKind. Adjacent text of one kind is
// tokenised together, text of different kinds separately, so the mask of supervised tokens follows from the
// spans and never from re-tokenised lengths.
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "data/text/tokenizer.h"
#include "tensor/segments.h"

namespace burrow::data {

struct Turn {
  std::string question, answer;
};

struct Span {
  // Text, one special token, or the place of the image's visual tokens.
  enum class Content : uint8_t { text, begin, separator, end, image };
  TokenKind kind = TokenKind::prompt;  // answer: supervised. visual: the image's place
  Content content = Content::text;
  std::string text;
};

// The tokens of one sample, without its visual tokens.
struct Tokens {
  std::vector<int32_t> ids;
  std::vector<uint8_t> answer;  // 1 where the token is supervised
  int32_t visual_at = -1;       // visual tokens stand before ids[visual_at]; -1 without an image
};

// Lays out a conversation as spans: the text around questions and answers, and which text is supervised.
class ChatTemplate {
 public:
  // "plain":     [image] question <sep> answer <eos>, turn after turn
  // "vicuna_v1": <bos>{system} USER: [image]\n{question} ASSISTANT: {answer}<eos>USER: ..., LLaVA-1.5's
  // Throws for any other name and lists these.
  static const ChatTemplate& by_name(std::string_view name);

  const std::string& name() const { return name_; }
  // Spans in order. With `open`, the last turn's answer and its end are left out: a prompt to continue.
  std::vector<Span> spans(const std::vector<Turn>& turns, bool has_image, bool open = false) const;
  // Throws when the tokenizer lacks a special token that the template uses.
  void check(const Tokenizer& tokenizer) const;

 private:
  ChatTemplate(std::string name, void (*turn)(std::vector<Span>&, const Turn&, bool first, bool has_image),
               void (*finish)(std::vector<Span>&, const Turn&), std::vector<Span::Content> needs)
      : name_(std::move(name)), turn_(turn), finish_(finish), needs_(std::move(needs)) {}
  std::string name_;
  void (*turn_)(std::vector<Span>&, const Turn&, bool first, bool has_image);
  void (*finish_)(std::vector<Span>&, const Turn&);
  std::vector<Span::Content> needs_;
};

// The concatenated tokens of the spans. Text never yields special tokens.
Tokens tokenize(const std::vector<Span>& spans, const Tokenizer& tokenizer);

}  // namespace burrow::data
