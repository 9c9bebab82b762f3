*** Settings ***
Documentation       The catalogue, as a program reads it.

*** Test Cases ***
Every Book Has A Price
    ${books}=    Catalogue
    FOR    ${book}    IN    @{books}
        Should Be True    ${book}[cents] > 0    ${book}[title] costs nothing
    END

The Cheapest Book Is Emma
    ${books}=    Catalogue
    ${cheapest}=    Evaluate    min($books, key=lambda book: book["cents"])
    Should Be Equal    ${cheapest}[title]    Emma

*** Keywords ***
Catalogue
    ${text}=    Evaluate    urllib.request.urlopen("%{SHOP_URL}/api/books", timeout=10).read()    modules=urllib.request
    ${books}=    Evaluate    json.loads($text)
    RETURN    ${books}
