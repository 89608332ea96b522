#include "data/text/chat.h"

#include "tensor/check.h"

namespace burrow::data {
namespace {

using Content = Span::Content;
using Spans = std::vector<Span>;

// The system sentence of Vicuna 1.1 and later.
constexpr const char* vicuna_system =
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions.";

void image(Spans& s) { s.push_back({TokenKind::visual, Content::image, ""}); }
void prompt(Spans& s, std::string text) { s.push_back({TokenKind::prompt, Content::text, std::move(text)}); }
void answer(Spans& s, std::string text) {
  s.push_back({TokenKind::answer, Content::text, std::move(text)});
  s.push_back({TokenKind::answer, Content::end, ""});
}

void plain_turn(Spans& s, const Turn& turn, bool first, bool has_image) {
  if (first && has_image) image(s);
  prompt(s, turn.question);
  s.push_back({TokenKind::prompt, Content::separator, ""});
}
void plain_finish(Spans& s, const Turn& turn) { answer(s, turn.answer); }

void vicuna_turn(Spans& s, const Turn& turn, bool first, bool has_image) {
  if (first) {
    s.push_back({TokenKind::prompt, Content::begin, ""});
    prompt(s, fmt::format("{} ", vicuna_system));
  }
  prompt(s, "USER: ");
  if (first && has_image) {
    image(s);
    prompt(s, "\n");
  }
  prompt(s, turn.question);
  prompt(s, " ASSISTANT:");
}
void vicuna_finish(Spans& s, const Turn& turn) { answer(s, " " + turn.answer); }

const char* role(Content content) {
  if (content == Content::begin) return "begin (<bos> or <s>)";
  if (content == Content::end) return "end (<eos> or </s>)";
  return "separator (<sep>)";
}

int32_t special_id(const Tokenizer& tokenizer, Content content) {
  if (content == Content::begin) return tokenizer.begin_of_text();
  if (content == Content::end) return tokenizer.end_of_text();
  return tokenizer.find("<sep>");
}

}  // namespace

const ChatTemplate& ChatTemplate::by_name(std::string_view name) {
  static const ChatTemplate plain("plain", plain_turn, plain_finish, {Content::separator, Content::end});
  static const ChatTemplate vicuna("vicuna_v1", vicuna_turn, vicuna_finish, {Content::begin, Content::end});
  if (name == plain.name_) return plain;
  if (name == vicuna.name_) return vicuna;
  fail("[chat] no template '{}': there are plain and vicuna_v1", name);
}

std::vector<Span> ChatTemplate::spans(const std::vector<Turn>& turns, bool has_image, bool open) const {
  Spans all;
  for (size_t i = 0; i < turns.size(); ++i) {
    turn_(all, turns[i], i == 0, has_image);
    if (!open || i + 1 < turns.size()) finish_(all, turns[i]);
  }
  return all;
}

void ChatTemplate::check(const Tokenizer& tokenizer) const {
  for (const Content content : needs_)
    BURROW_CHECK(special_id(tokenizer, content) >= 0,
                 "[chat] template {} needs a token for {}: the tokenizer has none", name_, role(content));
}

Tokens tokenize(const std::vector<Span>& spans, const Tokenizer& tokenizer) {
  Tokens tokens;
  Place place = Place::start;
  for (size_t i = 0; i < spans.size(); ++i) {
    const Span& span = spans[i];
    std::vector<int32_t> ids;
    if (span.content == Content::image) {
      BURROW_CHECK(tokens.visual_at < 0, "[chat] a sample has one image at most");
      tokens.visual_at = static_cast<int32_t>(tokens.ids.size());
      place = Place::after_token;
    } else if (span.content == Content::text) {
      // Adjacent text is encoded together: BPE merges may cross from the template's "USER: " to the question.
      std::string text = span.text;
      while (i + 1 < spans.size() && spans[i + 1].content == Content::text && spans[i + 1].kind == span.kind)
        text += spans[++i].text;
      ids = tokenizer.encode_plain(text, place);
      if (!text.empty()) place = Place::inside;
    } else {
      ids = {special_id(tokenizer, span.content)};
      BURROW_CHECK(ids[0] >= 0, "[chat] the tokenizer has no token for {}", role(span.content));
      place = span.content == Content::begin ? Place::start : Place::after_token;
    }
    tokens.ids.insert(tokens.ids.end(), ids.begin(), ids.end());
    tokens.answer.resize(tokens.ids.size(), span.kind == TokenKind::answer);
  }
  return tokens;
}

}  // namespace burrow::data
